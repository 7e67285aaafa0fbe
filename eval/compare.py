"""Two benchmarks side by side: the difference of each arm's figures, how sure it is, and what else changed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from eval.chance import may_be_chance, seed_interval
from eval.coco.bootstrap import interval, resample
from eval.coco.intervals import RESAMPLES, SEED
from eval.coco.matches import read_matches
from eval.coco.report import matches_file
from eval.confidence import CONFIDENCE
from eval.metric_names import ABSENT, HEADLINES
from eval.verdict import BASES, CellRun

__all__ = ["ComparedRun", "changes", "compare", "comparison_note", "printed_comparison"]

_LONGEST: Final = 60
"""Characters of a value that are told."""

_COLUMNS: Final = (
    "arm", "protocol", "metric", "n before", "n after", "before", "after", "difference",
    "seeds low", "seeds high", "images low", "images high", "beyond chance",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ComparedRun:
    """A finished benchmark."""

    cells: Sequence[CellRun]
    folders: Mapping[str, Path]
    """Cell to the folder of its evaluation; a hole has none."""
    noise_ap: float
    """Difference of AP that it states to be chance, per cent."""


def compare(before: ComparedRun, after: ComparedRun, threads: int = 1) -> pd.DataFrame:
    """A row for each arm, protocol and figure of HEADLINES that either run has, in the order of `before`.

    Columns: arm, protocol, metric, n before, n after (seeds), before, after (means over seeds, per cent), difference,
    the ends of its 95 % intervals over the seeds (eval.chance.seed_interval) and over the images (the paired bootstrap,
    where both runs were evaluated on the same ones), NaN where there is none, and `beyond chance`: whether the seeds,
    or with one of them the stated noise, leave it more than chance (eval.chance.may_be_chance); None without a
    difference. Images alone never make it so: they know nothing of what another seed gives.
    """
    rows: list[tuple[Any, ...]] = []
    noise = max(before.noise_ap, after.noise_ap)
    groups = dict.fromkeys(cell.group for cell in (*before.cells, *after.cells))
    for group in groups:
        arm, _, protocol = group.partition(".")
        old, new = ([cell for cell in run.cells if cell.group == group] for run in (before, after))
        for metric in HEADLINES:
            was, became = ([v for cell in cells if (v := cell.metrics.get(metric)) is not None] for cells in (old, new))
            if not was and not became:
                continue
            means = [float(np.mean(found)) if found else np.nan for found in (was, became)]
            seeds = (seed_interval(became, was) if was and became else None) or _NONE
            images = _over_images(metric, (old, before), (new, after), threads)
            beyond = not may_be_chance(became, was, noise) if was and became else None
            rows.append(
                (arm, protocol, metric, len(was), len(became), *means, means[1] - means[0], *seeds, *images, beyond)
            )
    return pd.DataFrame(rows, columns=list(_COLUMNS))


_NONE: Final = (np.nan, np.nan)
_Side = tuple[Sequence[CellRun], ComparedRun]


def _over_images(metric: str, old: _Side, new: _Side, threads: int) -> tuple[float, float]:
    task, _, figure = metric.partition("/")
    if figure != "AP":
        return _NONE
    files = [
        [run.folders[cell.cell] / matches_file(task) for cell in cells if cell.cell in run.folders]
        for cells, run in (old, new)
    ]
    if not all(files) or not all(file.exists() for of_side in files for file in of_side):
        return _NONE
    before, after = ([read_matches(file) for file in of_side] for of_side in files)
    if not np.array_equal(before[0].images, after[0].images):
        return _NONE
    (old_value, old_draws), (new_value, new_draws) = (resample(m, RESAMPLES, SEED, threads) for m in (before, after))
    found = interval(new_value - old_value, new_draws - old_draws)
    return found.low, found.high


def changes(before: Sequence[CellRun], after: Sequence[CellRun]) -> dict[str, list[str]]:
    """Each of eval.verdict.BASES to a line for each name whose value differs: "name: before -> after".

    Cells are held against each other one by one; a line that not all of them share names those that it is of. Cells
    that only one of the runs has are named under "cells".
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
    others = {cell.cell: cell for cell in after if not cell.hole}
    both = [(cell, others[cell.cell]) for cell in before if not cell.hole and cell.cell in others]
    groups: dict[str, list[str]] = {}
    for cell, _ in both:
        groups.setdefault(cell.group, []).append(cell.cell)
    for base in BASES:
        lines: dict[str, list[str]] = {}  # a line to the cells that it is of
        for old, new in both:
            was, became = old.basis.get(base, {}), new.basis.get(base, {})
            for name in sorted(name for name in {*was, *became} if was.get(name) != became.get(name)):
                lines.setdefault(f"{name}: {_change(was.get(name), became.get(name))}", []).append(old.cell)
        if lines:
            found[base] = [
                line if len(cells) == len(both) else f"{line} ({_of(cells, groups)})" for line, cells in lines.items()
            ]
    return found


def _of(cells: Sequence[str], groups: Mapping[str, Sequence[str]]) -> str:
    """Those that differ by their seed alone by one name, if they are all of them."""
    whole = {cell: group for group, of in groups.items() if set(of) <= set(cells) for cell in of}
    return ", ".join(dict.fromkeys(whole.get(cell, cell) for cell in cells))


def _change(was: str | None, became: str | None) -> str:
    """Long values are cut, behind the place where they part."""
    shorter = min(len(was or ""), len(became or ""))
    parts = next((i for i in range(shorter) if was and became and was[i] != became[i]), shorter)
    start = max(0, parts - 20) if max(len(was or ""), len(became or "")) > _LONGEST else 0
    return f"{_told(was, start)} -> {_told(became, start)}"


def _told(value: str | None, start: int) -> str:
    if value is None:
        return "absent"
    shown = value[start : start + _LONGEST]
    return ("…" if start else "") + shown + ("…" if start + _LONGEST < len(value) else "")


def printed_comparison(comparison: pd.DataFrame) -> pd.DataFrame:
    """As text, one decimal."""
    shown = comparison[["arm", "protocol"]].astype(str)
    shown["figure"] = comparison["metric"].map(HEADLINES)
    counts = zip(comparison["n before"], comparison["n after"], strict=True)
    shown["n"] = [f"{a}" if a == b else f"{a} | {b}" for a, b in counts]
    for name in ("before", "after", "difference"):
        sign = "+" if name == "difference" else ""
        shown[name] = [ABSENT if pd.isna(value) else f"{value:{sign}.1f}" for value in comparison[name]]
    for name in ("seeds", "images"):
        ends = zip(comparison[f"{name} low"], comparison[f"{name} high"], strict=True)
        shown[f"over {name}"] = [ABSENT if pd.isna(low) else f"{low:+.1f} to {high:+.1f}" for low, high in ends]
    told = {True: "yes", False: "no"}
    shown["beyond chance"] = [told.get(beyond, ABSENT) for beyond in comparison["beyond chance"]]
    return shown


def comparison_note(noise_ap: float) -> str:
    """What has to stand under a comparison."""
    return (
        f"Intervals of {100 * CONFIDENCE:.0f} %: over seeds by Welch's t, over images by the paired bootstrap. A "
        "difference is beyond chance where its interval over seeds leaves out 0, or where a run has one seed, where it "
        f"is larger than the stated noise of {noise_ap:g} AP and than the other run's spread; each for itself."
    )
