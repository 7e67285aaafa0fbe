"""A stored AP table in the formats that people paste: CSV (the long frame), JSON, Markdown, LaTeX."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pandas as pd

from eval.format_names import STORED
from eval.metric_names import ABSENT
from eval.stacked import NAMES, stacked_arms, without, without_repeats
from eval.standing import MARKS
from pcd.errors import PCDError

__all__ = ["as_latex", "read_table", "table_as"]

_SIGNS: Final = {"Δ": r"$\Delta$", "±": r"$\pm$", ABSENT: "--"}
"""These stand in no encoding of LaTeX's own."""

_NARROW: Final = r"\footnotesize\setlength{\tabcolsep}{3pt}"
"""So that all columns fit a page of the class `article`."""

_STANDING: Final = r"Bold: the best of its protocol; $\sim$: cannot be told from it."
_IMAGES: Final = r"Over images: 95\,\% interval over the evaluation images."


def table_as(format_name: str, folder: Path) -> str:
    """One of eval.format_names.FORMATS, of an aggregate stage's folder.

    Raises PCDError if the folder lacks what it is made of, or that is damaged.
    """
    if format_name == "latex":
        return as_latex(read_table(folder))
    if format_name == "json":
        read_table(folder)  # a damaged one must not be taken for a table
    path = folder / STORED[format_name]
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise PCDError(_gone(path, error)) from None


def read_table(folder: Path) -> dict[str, Any]:
    """An aggregate stage's ap_table.json. Raises PCDError if it is gone or damaged."""
    path = folder / "ap_table.json"
    try:
        record: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise PCDError(_gone(path, error)) from None
    return record


def _gone(path: Path, error: Exception) -> str:
    told = error.strerror if isinstance(error, OSError) else "is damaged"
    return f"{path}: {told}; run the benchmark again, which computes what is missing"


def as_latex(record: Mapping[str, Any]) -> str:
    r"""The arms of an ap_table.json as a `table` with booktabs: the best in bold, by $\sim$ what is within its noise.

    The legend stands below it, all further notes as comments behind.
    """
    protocols = dict.fromkeys(str(arm["protocol"]) for arm in record["printed"])
    only = next(iter(protocols)) if len(protocols) == 1 else ""
    stacked = without(stacked_arms(record), *(["protocol"] if only else []))
    columns = stacked[0]
    shown = pd.DataFrame(without_repeats(stacked), columns=list(columns))
    best = shown["AP"].str.endswith(f" {MARKS['best']}")
    shown["AP"] = shown["AP"].str.removesuffix(f" {MARKS['best']}")
    layout = "".join("l" if name in NAMES and name != "n" else "r" for name in columns)
    style = shown.style.hide(axis="index").format(escape="latex").format_index(escape="latex", axis="columns")
    style = style.apply(lambda _: ["textbf: --rwrap;" if of else "" for of in best], subset=["AP"])
    name = str(record["title"]).removeprefix("AP table of ").partition(" ")[0]
    caption = str(record["title"]) + (f", by {only}" if only else "")
    table = style.to_latex(
        hrules=True, column_format=layout, caption=caption.replace("_", r"\_"), label=f"tab:{name}",
        position_float="centering",
    ).replace(r" \textasciitilde ", r"$^{\sim}$ ")  # fmt: skip
    legend = [_STANDING] if best.any() else []
    legend += [_IMAGES] if "over images" in columns else []
    if legend:
        below = rf"\par\smallskip\parbox{{\linewidth}}{{\footnotesize {' '.join(legend)}}}"
        table = table.replace(r"\end{table}", below + "\n" + r"\end{table}")
    table = table.replace(r"\begin{tabular}", _NARROW + "\n" + r"\begin{tabular}")
    for sign, command in _SIGNS.items():
        table = table.replace(sign, command)
    return table + "".join(f"% {line}\n" for note in record["notes"] for line in str(note).splitlines())
