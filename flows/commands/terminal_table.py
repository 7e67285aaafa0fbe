"""The AP table on a terminal; without pandas, whose import alone takes a second."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from eval.stacked import NAMES, stacked_arms, without_repeats

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["plain_table", "print_table", "print_tables"]

_DIFFERENCES: Final = "Differences between arms"
_PUBLISHED: Final = "Published figures"
_WIDEST: Final = 10_000


def print_table(record: Mapping[str, Any]) -> None:
    """Print the arms of an ap_table.json, how far they lie from the first one, what was published, and the notes."""
    stacked = stacked_arms(record)
    tables = [_table(record["title"], stacked[0], without_repeats(stacked))]
    further: Mapping[str, Sequence[Mapping[str, str]]] = record.get("further", {})
    for title, shown in ((_DIFFERENCES, _of_first(further)), (_PUBLISHED, further.get(_PUBLISHED, ()))):
        if shown:
            tables.append(_table(title, tuple(shown[0]), [tuple(row.values()) for row in shown]))
    print_tables(tables, record["notes"])


def _of_first(further: Mapping[str, Sequence[Mapping[str, str]]]) -> list[Mapping[str, str]]:
    """Of each protocol the differences to the first arm that others are held against there."""
    rows = further.get(_DIFFERENCES, ())
    first = {row["protocol"]: row["against"] for row in reversed(rows)}
    return [row for row in rows if first[row["protocol"]] == row["against"]]


def print_tables(tables: Sequence[Table], notes: Sequence[str] = ()) -> None:
    """On a terminal as wide as that is; a pipe has no width, and no column is cut there."""
    console = Console(highlight=False)
    if not console.is_terminal:
        whole = console.options.update(max_width=_WIDEST)
        needed = [Measurement.get(console, whole, table).maximum for table in tables]
        console = Console(width=max(120, *needed), highlight=False)
    for table in tables:
        console.print(table)
    for note in notes:
        console.print(f"- {note}", markup=False)


def plain_table(title: str, shown: "pd.DataFrame") -> Table:
    """A data frame of text; what follows the names is aligned right."""
    return _table(title, tuple(shown.columns), shown.itertuples(index=False))


_LEFT: Final = frozenset((*NAMES, "against", "initialisation", "student", "beside", "recipe", "source")) - {"n"}
_WRAPPED: Final = {"recipe": 40, "source": 40}
"""Columns of sentences to their width."""


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    table = Table(title=title, box=box.SIMPLE, title_justify="left")
    for column in columns:
        table.add_column(
            column, justify="left" if column in _LEFT else "right", no_wrap=column not in _WRAPPED,
            max_width=_WRAPPED.get(column), overflow="fold",
        )  # fmt: skip
    for row in rows:
        table.add_row(*row)
    return table
