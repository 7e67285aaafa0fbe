"""The AP table on a terminal; without pandas, whose import alone takes a second."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich import box
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["plain_table", "print_table"]

_ABSENT: Final = "–"  # as eval.table has it, which imports pandas
_ACCURACIES: Final = ("top-1", "kNN top-1")


def print_table(folder: Path) -> None:
    """Print the arms of an aggregate stage's folder, box AP above mask AP, with the notes that stand below them.

    A probe's accuracy stands in the column of AP.
    """
    record = json.loads((folder / "ap_table.json").read_text())
    # A pipe has no width; the table must not be cut there.
    console = Console(width=None if Console().is_terminal else 120, highlight=False)
    baselines = record.get("baselines") or [record["baseline"]]  # a table of before there could be several
    differences = [f"Δ {baseline}" for baseline in baselines]
    names = ("AP", *differences, "AP50", "AP75", "APs", "APm", "APl")
    table = Table(title=record["title"], box=box.SIMPLE, title_justify="left")
    for column in ("arm", "protocol", "n", "", *names):
        table.add_column(column, justify="left" if column in ("arm", "protocol", "") else "right", no_wrap=True)
    for row in record["printed"]:
        lines = [(kind, [row.get(f"{kind} {name}", _ABSENT) for name in names]) for kind in ("box", "mask")]
        lines += [
            (kind, [row.get(kind, _ABSENT), *(row.get(f"{kind} {d}", _ABSENT) for d in differences), *[_ABSENT] * 5])
            for kind in _ACCURACIES
        ]
        given = [line for line in lines if set(line[1]) != {_ABSENT}] or lines[:1]
        for i, (kind, figures) in enumerate(given):
            table.add_row(*((row["arm"], row["protocol"], row["n"]) if i == 0 else ("", "", "")), kind, *figures)
    console.print(table)
    for note in record["notes"]:
        console.print(f"- {note}", markup=False)


def plain_table(title: str, shown: "pd.DataFrame") -> Table:
    """A data frame of text; what follows the names is aligned right."""
    table = Table(title=title, box=box.SIMPLE, title_justify="left")
    for column in shown.columns:
        table.add_column(column, justify="left" if column in ("arm", "protocol", "figure") else "right", no_wrap=True)
    for row in shown.itertuples(index=False):
        table.add_row(*row)
    return table
