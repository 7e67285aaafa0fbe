"""All that is said of a set of detections: figures, and beside predictions.json what later comparisons rest on."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from eval.coco.matches import collect, match_image
from eval.coco.mistakes import count_mistakes
from eval.coco.overlaps import overlaps
from eval.coco.score import coco_figures
from pcd.stage import write_json

__all__ = ["MISTAKES", "matches_file", "report"]

MISTAKES: Final = "mistakes.json"
"""Task to what eval.coco.mistakes.Mistakes has of it."""


def matches_file(task: str) -> str:
    """The name of the file that holds a task's eval.coco.matches.Matches."""
    return f"matches_{task}.npz"


def report(
    coco: dict[str, Any], detections: Sequence[dict[str, Any]], tasks: Sequence[str], folder: Path, threads: int = 1
) -> dict[str, float | None]:
    """eval.coco.score.coco_figures; leaves the matches of each task and MISTAKES in `folder`.

    Args:
        detections: COCO result records that eval.coco.results.check_results has seen.
    """
    mistakes = {}
    for task in tasks:
        matched = [(image, match_image(image)) for image in overlaps(coco, detections, task)]
        collect(coco, matched).write(folder / matches_file(task))
        found = count_mistakes(matched)
        mistakes[task] = asdict(found) | ({"ap50": None} if math.isnan(found.ap50) else {})
    write_json(folder / MISTAKES, mistakes)
    return coco_figures(coco, detections, tasks, threads)
