"""Pascal VOC's average precision of boxes, by the devkit's rules as Detectron2 applies them.

facebookresearch/detectron2@02b5c4e2 detectron2/evaluation/pascal_voc_evaluation.py, with its roundings: scores to three
decimals, pixels to one. A detection belongs to the object that it overlaps most; it is right if they overlap by more
than the threshold and no detection of a higher score took that object, and does not count if the object is `difficult`.
Two differences: among equal scores the earlier detection comes first, where Detectron2 leaves that to the processor;
and a class without objects has no AP, where Detectron2 counts 0.
"""

import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["average_precision", "score"]

Floats = NDArray[np.float64]

_THRESHOLDS: Final = tuple(percent / 100 for percent in range(50, 100, 5))


def score(predictions_file: Path, annotations: Path) -> dict[str, float | None]:
    """`bbox/AP` (mean over the overlaps .50 to .95), `bbox/AP50`, `bbox/AP75` and each `bbox/AP-<class>`, per cent.

    VOC 2007 is scored at eleven points of recall, other years by the whole area below the curve. None where nothing
    can be found.

    Args:
        predictions_file: COCO result records.
        annotations: as eval.datasets.voc writes them, `difficult` and `info.year` included.
    """
    coco = json.loads(annotations.read_text())
    found: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for record in json.loads(predictions_file.read_text()):
        found[record["category_id"]].append(record)
    objects: dict[int, dict[int, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for annotation in coco["annotations"]:
        objects[annotation["category_id"]][annotation["image_id"]].append(annotation)
    by_class = {
        category["name"]: _of_class(found[category["id"]], objects[category["id"]], coco["info"]["year"] == 2007)
        for category in coco["categories"]
    }
    known = np.array([aps for aps in by_class.values() if aps is not None])  # (classes, thresholds)
    means = 100 * known.mean(axis=0) if len(known) else None
    at = dict(zip(_THRESHOLDS, means.tolist(), strict=True)) if means is not None else {}
    return {
        "bbox/AP": None if means is None else float(means.mean()),
        "bbox/AP50": at.get(0.5),
        "bbox/AP75": at.get(0.75),
        **{f"bbox/AP-{name}": None if aps is None else float(100 * aps.mean()) for name, aps in by_class.items()},
    }


def _of_class(
    found: list[dict[str, Any]], objects: Mapping[int, list[dict[str, Any]]], at_eleven: bool
) -> Floats | None:
    """(thresholds) AP, 0 to 1; None if the class has no object that is not difficult."""
    wanted = sum(not one["difficult"] for of_image in objects.values() for one in of_image)
    if not wanted:
        return None
    scores = np.array([float(f"{record['score']:.3f}") for record in found])
    found = [found[i] for i in np.argsort(-scores, kind="stable")]
    overlap, nearest, difficult = _nearest_objects(found, objects)
    aps = []
    for threshold in _THRESHOLDS:
        touches = overlap > threshold
        counts = touches & ~difficult
        right = np.zeros(len(found), bool)
        if counts.any():
            places = np.flatnonzero(counts)
            right[places[np.unique(nearest[places], return_index=True)[1]]] = True  # the first one takes the object
        wrong = ~right & ~(touches & difficult)
        aps.append(average_precision(np.cumsum(right), np.cumsum(wrong), wanted, at_eleven))
    return np.array(aps)


def _nearest_objects(
    found: list[dict[str, Any]], objects: Mapping[int, list[dict[str, Any]]]
) -> tuple[Floats, NDArray[np.int64], NDArray[np.bool_]]:
    """(N) of each detection: its greatest overlap with an object of its image, which object, and is it difficult."""
    overlap, nearest = np.full(len(found), -np.inf), np.full(len(found), -1)
    difficult = np.zeros(len(found), bool)
    places: dict[int, list[int]] = defaultdict(list)
    for place, record in enumerate(found):
        places[record["image_id"]].append(place)
    numbered = 0
    for image, of_image in objects.items():
        here = places.get(image, [])
        if here:
            truth = np.array([_corners(one["bbox"]) for one in of_image])  # (G, 4)
            boxes = np.array([[float(f"{x:.1f}") for x in _corners(found[place]["bbox"])] for place in here])  # (D, 4)
            both = _overlaps(boxes, truth)  # (D, G)
            best = both.argmax(axis=1)
            overlap[here], nearest[here] = both.max(axis=1), numbered + best
            difficult[here] = np.array([bool(one["difficult"]) for one in of_image])[best]
        numbered += len(of_image)
    return overlap, nearest, difficult


def _corners(box: list[float]) -> tuple[float, float, float, float]:
    """x, y, width, height from 0 to VOC's first and last pixel, counted from 1."""
    x, y, width, height = box
    return x + 1, y + 1, x + width, y + height


def _overlaps(boxes: Floats, truth: Floats) -> Floats:
    """(D, G) intersection over union of boxes that hold their last pixel."""
    low = np.maximum(boxes[:, None, :2], truth[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], truth[None, :, 2:])
    shared = np.clip(high - low + 1, 0, None).prod(axis=2)  # (D, G)
    areas = [(one[:, 2:] - one[:, :2] + 1).prod(axis=1) for one in (boxes, truth)]
    return np.asarray(shared / (areas[0][:, None] + areas[1][None, :] - shared))


def average_precision(right: NDArray[Any], wrong: NDArray[Any], wanted: int, at_eleven: bool) -> float:
    """Of the running counts of right and wrong detections, by falling score; 0 to 1.

    Args:
        wanted: objects that could be found.
        at_eleven: the mean of the best precision at a recall of at least 0, 0.1, …, 1 (VOC 2007); else the area below
            the curve of these bests (from 2010 on).
    """
    recall = right / wanted
    # Where all so far met difficult objects, nothing counts yet.
    precision = right / np.maximum(right + wrong, np.finfo(np.float64).eps)
    if at_eleven:
        bests = [precision[recall >= level].max(initial=0) for level in np.arange(0.0, 1.1, 0.1)]
        return float(sum(best / 11 for best in bests))
    recall = np.concatenate([[0.0], recall, [1.0]])
    best = np.maximum.accumulate(np.concatenate([[0.0], precision, [0.0]])[::-1])[::-1]
    return float(np.sum((recall[1:] - recall[:-1]) * best[1:]))
