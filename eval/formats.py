"""A stored AP table in the formats that people paste: CSV (the long frame), JSON, Markdown, LaTeX."""

import json
from pathlib import Path
from typing import Final

import pandas as pd

from pcd.errors import PCDError

__all__ = ["FORMATS", "as_latex", "table_as"]

_FILES: Final = {"csv": "results.csv", "json": "ap_table.json", "md": "ap_table.md"}
FORMATS: Final = (*_FILES, "latex")


def table_as(format_name: str, folder: Path) -> str:
    """One of FORMATS, of an aggregate stage's folder.

    Raises PCDError if the folder lacks what it is made of.
    """
    path = folder / _FILES.get(format_name, "ap_table.json")
    if not path.exists():
        raise PCDError(f"{path} is not there; run the benchmark again, which computes what is missing")
    text = path.read_text()
    return as_latex(json.loads(text)) if format_name == "latex" else text


def as_latex(record: dict[str, object]) -> str:
    """The arms of an ap_table.json as a `table` with booktabs rules; the notes stand below as comments."""
    rows, title, notes = (record[name] for name in ("printed", "title", "notes"))
    assert isinstance(rows, list)
    assert isinstance(notes, list)
    printed = pd.DataFrame(rows)
    left = {"arm", "protocol"}
    columns = "".join("l" if name in left else "r" for name in printed.columns)
    style = printed.style.hide(axis="index").format(escape="latex").format_index(escape="latex", axis="columns")
    caption = str(title).replace("_", r"\_")  # of what names may hold, LaTeX minds this alone
    table = style.to_latex(hrules=True, column_format=columns, caption=caption, position_float="centering")
    # These stand in no encoding of LaTeX's own.
    for sign, command in {"Δ": r"$\Delta$", "±": r"$\pm$", "–": "--"}.items():
        table = table.replace(sign, command)
    return table + "".join(f"% {line}\n" for note in notes for line in str(note).splitlines())
