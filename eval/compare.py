"""Two benchmarks side by side: the difference of each arm's figures, how sure it is, and what else changed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from eval.coco.bootstrap import interval, resample
from eval.coco.intervals import RESAMPLES, SEED
from eval.coco.matches import read_matches
from eval.coco.report import matches_file
from eval.table import ABSENT, HEADLINES
from eval.verdict import BASES, CellRun

__all__ = ["ComparedRun", "changes", "compare", "printed_comparison"]

_COLUMNS: Final = (
    "arm",
    "protocol",
    "metric",
    "n before",
    "n after",
    "before",
    "after",
    "difference",
    "low",
    "high",
    "of",
)


@dataclass(frozen=True, slots=True)
class ComparedRun:
    """A finished benchmark."""

    cells: Sequence[CellRun]
    folders: Mapping[str, Path]
    """Cell to the folder of its evaluation; a hole has none."""


def compare(before: ComparedRun, after: ComparedRun, threads: int = 1) -> pd.DataFrame:
    """A row for each arm, protocol and figure of HEADLINES that either run has, in the order of `before`.

    Columns: arm, protocol, metric, n before, n after (seeds), before, after (means over seeds, per cent), difference,
    and the 95 % interval low, high of the difference, with what it is `of`: "images", the paired bootstrap over the
    evaluation images where both runs were evaluated on the same ones; "" and NaN elsewhere.
    """
    rows: list[dict[str, Any]] = []
    groups = dict.fromkeys(cell.group for cell in (*before.cells, *after.cells))
    for group in groups:
        arm, _, protocol = group.partition(".")
        old, new = ([cell for cell in run.cells if cell.group == group] for run in (before, after))
        for metric in HEADLINES:
            values = [[v for cell in cells if (v := cell.metrics.get(metric)) is not None] for cells in (old, new)]
            if not any(values):
                continue
            means = [float(np.mean(found)) if found else float("nan") for found in values]
            low, high, of = _over_images(metric, (old, before), (new, after), threads)
            counts = [len(found) for found in values]
            rows.append(
                dict(
                    zip(
                        _COLUMNS,
                        (arm, protocol, metric, *counts, *means, means[1] - means[0], low, high, of),
                        strict=True,
                    )
                )
            )
    return pd.DataFrame(rows, columns=list(_COLUMNS))


_Side = tuple[Sequence[CellRun], ComparedRun]


def _over_images(metric: str, old: _Side, new: _Side, threads: int) -> tuple[float, float, str]:
    task, _, figure = metric.partition("/")
    nothing = (float("nan"), float("nan"), "")
    if figure != "AP":
        return nothing
    files = [
        [run.folders[cell.cell] / matches_file(task) for cell in cells if cell.cell in run.folders]
        for cells, run in (old, new)
    ]
    if not all(files) or not all(file.exists() for of_side in files for file in of_side):
        return nothing
    before, after = ([read_matches(file) for file in of_side] for of_side in files)
    if not np.array_equal(before[0].images, after[0].images):
        return nothing
    (old_value, old_draws), (new_value, new_draws) = (resample(m, RESAMPLES, SEED, threads) for m in (before, after))
    found = interval(new_value - old_value, new_draws - old_draws)
    return found.low, found.high, "images"


def changes(before: Sequence[CellRun], after: Sequence[CellRun]) -> dict[str, list[str]]:
    """Each of eval.verdict.BASES to a line for each name whose value differs: "name: before -> after".

    A name's value is that of all the cells that have it; cells that only one of the runs has are named under "cells".
    """
    found: dict[str, list[str]] = {}
    only = [
        *(f"{cell.cell}: only before" for cell in before if cell.cell not in {c.cell for c in after}),
        *(f"{cell.cell}: only after" for cell in after if cell.cell not in {c.cell for c in before}),
        *(f"{cell.cell}: a hole before ({cell.hole})" for cell in before if cell.hole),
        *(f"{cell.cell}: a hole after ({cell.hole})" for cell in after if cell.hole),
    ]
    if only:
        found["cells"] = only
    for base in BASES:
        old, new = (_values(cells, base) for cells in (before, after))
        lines = [
            f"{n}: {_told(old.get(n))} -> {_told(new.get(n))}" for n in sorted({*old, *new}) if old.get(n) != new.get(n)
        ]
        if lines:
            found[base] = lines
    return found


def _values(cells: Sequence[CellRun], base: str) -> dict[str, str]:
    found: dict[str, set[str]] = {}
    for cell in cells:
        for name, value in cell.basis.get(base, {}).items():
            found.setdefault(name, set()).add(value)
    return {name: " + ".join(sorted(values)) for name, values in found.items()}


def _told(value: str | None) -> str:
    if value is None:
        return "absent"
    return value if len(value) <= 60 else f"{value[:12]}…"


def printed_comparison(comparison: pd.DataFrame) -> pd.DataFrame:
    """As text, one decimal; a difference whose interval leaves 0 out is marked by *."""
    shown = comparison[["arm", "protocol"]].astype(str)
    shown["figure"] = comparison["metric"].map(HEADLINES)
    shown["n"] = [
        f"{a}" if a == b else f"{a} | {b}" for a, b in zip(comparison["n before"], comparison["n after"], strict=True)
    ]
    for name in ("before", "after"):
        shown[name] = comparison[name].map(lambda value: ABSENT if pd.isna(value) else f"{value:.1f}")
    shown["difference"] = [
        ABSENT
        if pd.isna(d)
        else f"{d:+.1f}" + (f" ({low:+.1f} to {high:+.1f})" if of else "") + (" *" if low > 0 or high < 0 else "")
        for d, low, high, of in zip(*(comparison[name] for name in ("difference", "low", "high", "of")), strict=True)
    ]
    return shown
