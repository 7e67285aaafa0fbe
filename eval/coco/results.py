"""Detections as COCO result records, checked against the set that they are of."""

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from pcd.errors import PCDError

__all__ = ["TASKS", "check_results"]

TASKS: Final = ("bbox", "segm")
"""COCO's names of boxes and masks, as figures are named by them."""

_SHAPE: Final = {"bbox": "bbox", "segm": "segmentation"}


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
