"""The AP table on a terminal; without pandas, whose import alone takes a second."""

import json
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

__all__ = ["print_table"]


def print_table(folder: Path) -> None:
    """Print the arms of an aggregate stage's folder, box AP above mask AP, with the notes that stand below them."""
    record = json.loads((folder / "ap_table.json").read_text())
    # A pipe has no width; the table must not be cut there.
    console = Console(width=None if Console().is_terminal else 120, highlight=False)
    names = ("AP", f"Δ {record['baseline']}", "AP50", "AP75", "APs", "APm", "APl")
    table = Table(title=record["title"], box=box.SIMPLE, title_justify="left")
    for column in ("arm", "protocol", "n", "", *names):
        table.add_column(column, justify="left" if column in ("arm", "protocol", "") else "right", no_wrap=True)
    for row in record["printed"]:
        for kind in ("box", "mask"):
            first = [row["arm"], row["protocol"], row["n"]] if kind == "box" else ["", "", ""]
            table.add_row(*first, kind, *(row[f"{kind} {name}"] for name in names))
    console.print(table)
    for note in record["notes"]:
        console.print(f"- {note}", markup=False)
