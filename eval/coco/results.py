"""Detections as COCO result records: read, and checked against the set that they are of."""

import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from pcd.errors import PCDError

__all__ = ["TASKS", "check_results", "read_coco", "read_results"]

TASKS: Final = ("bbox", "segm")
"""COCO's names of boxes and masks, as figures are named by them."""

_SHAPE: Final = {"bbox": "bbox", "segm": "segmentation"}


def read_coco(annotations: Path) -> dict[str, Any]:
    """The COCO record in a file that the data stage looked at; raises PCDError if it is no longer there."""
    try:
        coco: dict[str, Any] = json.loads(annotations.read_text())
        missing = [name for name in ("images", "annotations", "categories") if name not in coco]
    except (OSError, ValueError, TypeError) as error:
        raise PCDError(f"{annotations} cannot be read as COCO JSON ({error}); check the data settings") from None
    if missing:
        raise PCDError(f"{annotations} has no {' and no '.join(missing)}; a COCO file has all three lists")
    return coco


def read_results(predictions: Path, coco: dict[str, Any], tasks: Sequence[str] = TASKS) -> list[dict[str, Any]]:
    """The records of a predictions.json, in the file's order.

    Raises:
        PCDError: the file is no list of records, or check_results finds fault with it.
    """
    try:
        found = json.loads(predictions.read_text())
    except (OSError, ValueError) as error:
        raise PCDError(f"{predictions} cannot be read as JSON ({error}); evaluate the detector again") from None
    if not isinstance(found, list):
        raise PCDError(f"{predictions} is no list of COCO result records; evaluate the detector again")
    check_results(found, coco, tasks, predictions)
    return found


def check_results(found: Sequence[Any], coco: dict[str, Any], tasks: Sequence[str], place: Path) -> None:
    """Refuse what cannot be evaluated; `place` is where the records lie.

    Raises:
        PCDError: a record has an image or category that `coco` does not list, no shape for a task, or a score or box
            that is no number.
    """
    fault = _fault(found, coco, tasks)
    if fault:
        raise PCDError(f"{place}: {fault}")


def _fault(found: Sequence[Any], coco: dict[str, Any], tasks: Sequence[str]) -> str | None:
    wanted = ("image_id", "category_id", "score", *(_SHAPE[task] for task in tasks))
    for i, record in enumerate(found):
        missing = [name for name in wanted if not isinstance(record, dict) or name not in record]
        if missing:
            return f"record {i} has no {' and no '.join(missing)}; it cannot be evaluated for {' and '.join(tasks)}"
        numbers = (record["score"], *(record["bbox"] if "bbox" in tasks else ()))
        if not all(isinstance(number, int | float) and math.isfinite(number) for number in numbers):
            return f"record {i} has a score or box that is no number; the detector's weights may be NaN"
    for kind, listed in (("image", coco["images"]), ("category", coco["categories"])):
        known = {record["id"] for record in listed}
        strange = Counter(record[f"{kind}_id"] for record in found if record[f"{kind}_id"] not in known)
        if strange:
            number, times = strange.most_common(1)[0]
            kinds = f"{kind} {number}, which the annotations do not list"
            return f"{sum(strange.values())} detections of another set ({times} of {kinds}); check which set it is of"
    return None
