"""The arms of a benchmark with the chance of their evaluation images, and what kinds of mistakes they make."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from eval.coco.bootstrap import CONFIDENCE, Interval, interval, resample
from eval.coco.matches import read_matches
from eval.coco.mistakes import KINDS
from eval.coco.report import MISTAKES, matches_file
from eval.coco.results import TASKS

__all__ = ["RESAMPLES", "SEED", "Evaluated", "arm_intervals", "arm_mistakes", "interval_note", "printed_intervals"]

RESAMPLES: Final = 1000
SEED: Final = 0  # the draws are the same for every table, so that tables can be compared
_LABELS: Final = {"bbox": "box", "segm": "mask"}


@dataclass(frozen=True, slots=True)
class Evaluated:
    """A cell, and where its evaluation lies."""

    arm: str
    protocol: str
    folder: Path


def arm_intervals(cells: Sequence[Evaluated], baselines: Sequence[str], threads: int = 1) -> pd.DataFrame:
    """One row per protocol, arm and task that left matches (eval.coco.report), in the cells' order.

    Columns: arm, protocol, task, n (seeds), ap (their mean, per cent), low, high (of its 95 % interval over images),
    and for each of the arms `baselines` `Δ baseline`, `Δ baseline low`, `Δ baseline high` (on the same draws; NaN where
    it is not there or is the arm).
    """
    rows: list[dict[str, Any]] = []
    for protocol in dict.fromkeys(cell.protocol for cell in cells):
        for task in TASKS:
            by_arm: dict[str, list[Path]] = {}
            for cell in cells:
                file = cell.folder / matches_file(task)
                if cell.protocol == protocol and file.exists():
                    by_arm.setdefault(cell.arm, []).append(file)
            drawn = {
                arm: resample([read_matches(file) for file in files], RESAMPLES, SEED, threads)
                for arm, files in by_arm.items()
            }
            for arm, (value, draws) in drawn.items():
                own = interval(value, draws)
                own = replace(own, low=max(own.low, 0.0), high=min(own.high, 100.0))
                row = {"arm": arm, "protocol": protocol, "task": task, "n": len(by_arm[arm])} | _ends("ap", own, "")
                for baseline in baselines:
                    difference = None
                    if arm != baseline and baseline in drawn:
                        base_value, base_draws = drawn[baseline]
                        difference = interval(value - base_value, draws - base_draws)
                    row |= _ends(f"Δ {baseline}", difference, f"Δ {baseline} ")
                rows.append(row)
    differences = [f"Δ {baseline}{end}" for baseline in baselines for end in ("", " low", " high")]
    return pd.DataFrame(rows, columns=["arm", "protocol", "task", "n", "ap", "low", "high", *differences])


def _ends(name: str, found: Interval | None, prefix: str) -> dict[str, float]:
    value, low, high = (found.value, found.low, found.high) if found else (np.nan,) * 3
    return {name: value, f"{prefix}low": low, f"{prefix}high": high}


def printed_intervals(intervals: pd.DataFrame, baselines: Sequence[str]) -> pd.DataFrame:
    """As text, with one column for AP and one for each difference."""

    def text(value: float, low: float, high: float, *, sign: str) -> str:
        return "–" if np.isnan(value) else f"{value:{sign}.1f} ({low:{sign}.1f} to {high:{sign}.1f})"

    shown = intervals[["arm", "protocol"]].astype(str)
    shown["of"] = intervals["task"].map(_LABELS)
    shown["n"] = intervals["n"].astype(str)
    ends = zip(intervals["ap"], intervals["low"], intervals["high"], strict=True)
    shown["AP"] = [text(*row, sign="") for row in ends]
    for difference in (f"Δ {baseline}" for baseline in baselines):
        ends = zip(*(intervals[f"{difference}{end}"] for end in ("", " low", " high")), strict=True)
        shown[difference] = [text(*row, sign="+") for row in ends]
    return shown


def interval_note() -> str:
    """What has to stand under a table of intervals."""
    return (
        f"Intervals hold {100 * CONFIDENCE:.0f} % of the chance of the evaluation images ({RESAMPLES} draws, the same "
        "for all arms), and none of the chance of training, which the spread of seeds shows."
    )


def arm_mistakes(cells: Sequence[Evaluated]) -> pd.DataFrame:
    """One row per arm, protocol, task and kind, with the means over seeds: count, and cost (points of AP50)."""
    rows = []
    for cell in cells:
        file = cell.folder / MISTAKES
        for task, found in (json.loads(file.read_text()) if file.exists() else {}).items():
            rows += [
                {
                    "arm": cell.arm, "protocol": cell.protocol, "task": task, "kind": kind,
                    "count": found["counts"][kind], "cost": found["costs"][kind],
                }
                for kind in KINDS
            ]  # fmt: skip
    axes = ["arm", "protocol", "task", "kind"]
    whole = pd.DataFrame(rows, columns=[*axes, "count", "cost"])
    return whole.groupby(axes, sort=False, as_index=False)[["count", "cost"]].mean()
