"""The AP table on a terminal; without pandas, whose import alone takes a second."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from rich import box
from rich.console import Console
from rich.table import Table

from eval.stacked import NAMES, stacked_arms, without_repeats

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["plain_table", "print_table"]

_FIRST: Final = "Differences between arms"


def print_table(record: Mapping[str, Any]) -> None:
    """Print the arms of an ap_table.json, how far they lie from the first one, what was published, and the notes."""
    # A pipe has no width; the table must not be cut there.
    console = Console(width=None if Console().is_terminal else 120, highlight=False)
    stacked = stacked_arms(record)
    console.print(_table(record["title"], stacked[0], without_repeats(stacked)))
    further: Mapping[str, Sequence[Mapping[str, str]]] = record.get("further", {})
    rows = further.get(_FIRST, ())
    first = [row for row in rows if row["against"] == rows[0]["against"]]
    for title, shown in ((_FIRST, first), ("Published figures", further.get("Published figures", ()))):
        if shown:
            console.print(_table(title, tuple(shown[0]), [tuple(row.values()) for row in shown]))
    for note in record["notes"]:
        console.print(f"- {note}", markup=False)


def plain_table(title: str, shown: "pd.DataFrame") -> Table:
    """A data frame of text; what follows the names is aligned right."""
    return _table(title, tuple(shown.columns), shown.itertuples(index=False))


_LEFT: Final = frozenset((*NAMES, "against", "initialisation", "student", "beside", "recipe", "source")) - {"n"}
_WRAPPED: Final = ("recipe", "source")


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    table = Table(title=title, box=box.SIMPLE, title_justify="left")
    for column in columns:
        table.add_column(column, justify="left" if column in _LEFT else "right", no_wrap=column not in _WRAPPED)
    for row in rows:
        table.add_row(*row)
    return table
