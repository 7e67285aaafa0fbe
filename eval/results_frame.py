"""All figures of a benchmark as one tidy long frame, a row for each cell and metric. Every table is a view of it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import pandas as pd

__all__ = ["RESULT_COLUMNS", "Cell", "Hole", "results_frame"]

RESULT_COLUMNS: Final = {
    "cell": "readable id, arm.protocol.seedN",
    "arm": "how the backbone came to be",
    "protocol": "how it was judged",
    "seed": "of pre-training and evaluation",
    "metric": "its whole name: task/figure or task/AP-category; an accuracy has no task",
    "task": "bbox or segm, blank for an accuracy",
    "figure": "AP, AP50, AP75, APs, APm, APl, AR…, top1, top5, knn_top1",
    "category": "of a figure for one category, else blank",
    "value": "in its unit; blank where the evaluated split has no such object",
    "unit": "per cent",
    "hole": "why a cell that should be there is not: of its row, metric and what follows are blank; else blank",
}
"""Column to what stands in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One fine-tuned detector or probed backbone, and what it scored."""

    cell: str
    """Readable id, arm.protocol.seed."""
    arm: str
    protocol: str
    seed: int
    metrics: dict[str, float | None]
    """Per cent, whatever the protocol gives: a Mask R-CNN's twelve, more of COCO's, `top1`; None where the split has no
    such object."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hole:
    """A cell that should be there and is not."""

    cell: str
    arm: str
    protocol: str
    seed: int
    reason: str


def results_frame(cells: Iterable[Cell], holes: Iterable[Hole] = ()) -> pd.DataFrame:
    """RESULT_COLUMNS, in the order of the cells and of each one's metrics, then the holes; NaN and "" for blanks."""
    rows: list[tuple[object, ...]] = []
    for cell in cells:
        for metric, value in cell.metrics.items():
            task, _, name = metric.rpartition("/")
            figure, _, category = name.partition("-")
            number = float("nan") if value is None else value
            names = (cell.cell, cell.arm, cell.protocol, cell.seed)
            rows.append((*names, metric, task, figure, category, number, "per cent", ""))
    rows += [
        (hole.cell, hole.arm, hole.protocol, hole.seed, *[""] * 4, float("nan"), "", hole.reason) for hole in holes
    ]
    return pd.DataFrame(rows, columns=list(RESULT_COLUMNS)).astype({"seed": int, "value": float})
