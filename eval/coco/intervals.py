"""The arms of a benchmark with the chance of their evaluation images, and what kinds of mistakes they make."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pandas as pd

from eval.coco.bootstrap import Floats, interval, resample
from eval.coco.matches import read_matches
from eval.coco.mistakes import KINDS
from eval.coco.report import MISTAKES, matches_file
from eval.coco.results import TASKS
from eval.confidence import CONFIDENCE
from eval.metric_names import TASK_LABELS

__all__ = [
    "RESAMPLES", "SEED", "Drawn", "Evaluated",
    "arm_intervals", "arm_mistakes", "draw_arms", "interval_note", "printed_intervals",
]  # fmt: skip

RESAMPLES: Final = 1000
SEED: Final = 0  # the draws are the same for every table, so that tables can be compared


@dataclass(frozen=True, slots=True)
class Evaluated:
    """A cell, and where its evaluation lies."""

    arm: str
    protocol: str
    folder: Path


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """An arm's AP by one protocol and task, per cent, as the mean of its seeds."""

    n: int
    """Seeds."""
    ap: float
    """On the images as they are."""
    draws: Floats
    """(RESAMPLES,) on the draws of them, which are the same for all arms."""


def draw_arms(
    cells: Sequence[Evaluated], threads: int = 1, tick: Callable[[str, int, int], object] | None = None
) -> dict[tuple[str, str], dict[str, Drawn]]:
    """(protocol, task) to the arms of which cells left matches (eval.coco.report), in the cells' order.

    Args:
        threads: processor cores.
        tick: told (phase, done, total) behind each cell and task, as one of COCO takes several seconds.

    Raises PCDError if matches cannot be read, or an arm's seeds were evaluated on different images.
    """
    files = _matches_of(cells)
    done, total = 0, sum(len(of_arm) for by_arm in files.values() for of_arm in by_arm.values())

    def one_more() -> None:
        nonlocal done
        done += 1
        if tick:
            tick("draws of the evaluation images", done, total)

    found: dict[tuple[str, str], dict[str, Drawn]] = {}
    for axes, by_arm in files.items():
        for arm, of_arm in by_arm.items():
            ap, draws = resample([read_matches(file) for file in of_arm], RESAMPLES, SEED, threads, one_more)
            found.setdefault(axes, {})[arm] = Drawn(len(of_arm), ap, draws)
    return found


def _matches_of(cells: Sequence[Evaluated]) -> dict[tuple[str, str], dict[str, list[Path]]]:
    """(protocol, task) to each arm's files, one of each seed."""
    found: dict[tuple[str, str], dict[str, list[Path]]] = {}
    for protocol in dict.fromkeys(cell.protocol for cell in cells):
        for task in TASKS:
            for cell in cells:
                file = cell.folder / matches_file(task)
                if cell.protocol == protocol and file.exists():
                    found.setdefault((protocol, task), {}).setdefault(cell.arm, []).append(file)
    return found


def arm_intervals(drawn: Mapping[tuple[str, str], Mapping[str, Drawn]]) -> pd.DataFrame:
    """One row per protocol, task and arm.

    Columns: arm, protocol, task, n (seeds), ap (their mean, per cent), and low and high, the ends of its 95 % interval
    over the evaluation images.
    """
    rows = []
    for (protocol, task), by_arm in drawn.items():
        for arm, of in by_arm.items():
            found = interval(of.ap, of.draws)
            rows.append((arm, protocol, task, of.n, found.value, max(found.low, 0.0), min(found.high, 100.0)))
    return pd.DataFrame(rows, columns=["arm", "protocol", "task", "n", "ap", "low", "high"])


def printed_intervals(intervals: pd.DataFrame) -> pd.DataFrame:
    """As text, one decimal, with the ends of the interval in a column of their own."""
    shown = intervals[["arm", "protocol"]].astype(str)
    shown["of"] = intervals["task"].map(TASK_LABELS)
    shown["n"] = intervals["n"].astype(str)
    shown["AP"] = intervals["ap"].map(lambda value: f"{value:.1f}")
    ends = zip(intervals["low"], intervals["high"], strict=True)
    shown["over images"] = [f"{low:.1f} to {high:.1f}" for low, high in ends]
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
