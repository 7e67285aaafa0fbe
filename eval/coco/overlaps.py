"""Which detection covers which object, image by image."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from faster_coco_eval import mask as coco_mask
from numpy.typing import NDArray

__all__ = ["IOU_THRESHOLDS", "MAX_DETECTIONS", "RECALLS", "ImageOverlaps", "overlaps"]

IOU_THRESHOLDS: Final = np.linspace(0.5, 0.95, 10)
"""COCO's, with its rounding: 0.5, 0.55, …, 0.95."""
RECALLS: Final = np.linspace(0, 1, 101)
"""At which COCO reads precision, with its rounding."""
MAX_DETECTIONS: Final = 100
"""That count, of one image and one category."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ImageOverlaps:
    """One image's D detections, by falling score, and G objects, crowds last."""

    image: int
    """Place among the images, by rising id."""
    scores: Floats
    """(D,)"""
    categories: Ints
    """(D,) places among the categories, by rising id."""
    object_categories: Ints
    """(G,)"""
    is_crowd: NDArray[np.bool_]
    """(G,)"""
    iou: Floats
    """(D, G); of a crowd the share of the detection that it covers, as COCO has it."""


def overlaps(coco: dict[str, Any], detections: Sequence[dict[str, Any]], task: str) -> Iterator[ImageOverlaps]:
    """Every image by rising id, those without objects or detections too.

    Args:
        coco: a COCO record.
        detections: COCO result records; an image's keep their order where scores are equal.
        task: bbox or segm.
    """
    places = {number: i for i, number in enumerate(sorted(c["id"] for c in coco["categories"]))}
    objects, found = _by_image(coco["annotations"]), _by_image(detections)
    for place, image in enumerate(sorted(coco["images"], key=lambda image: int(image["id"]))):
        own = objects.get(image["id"], [])
        own.sort(key=lambda a: a.get("iscrowd", 0))  # crowds last, else in the file's order
        mine = _best_of_each_category(found.get(image["id"], []))
        crowd = [int(a.get("iscrowd", 0)) for a in own]
        iou: Floats = np.zeros((len(mine), len(own)))
        if mine and own:
            size = (image.get("height"), image.get("width"))
            shapes = [_shapes(records, task, size) for records in (mine, own)]
            iou = np.asarray(coco_mask.iou(*shapes, crowd), np.float64)
        yield ImageOverlaps(
            image=place,
            scores=np.array([d["score"] for d in mine], np.float64),
            categories=np.array([places[d["category_id"]] for d in mine], np.int64),
            object_categories=np.array([places[a["category_id"]] for a in own], np.int64),
            is_crowd=np.array(crowd, np.bool_),
            iou=iou,
        )


def _by_image(records: Sequence[dict[str, Any]]) -> dict[int, list[dict[str, Any]]]:
    by_image = defaultdict(list)
    for record in records:
        by_image[record["image_id"]].append(record)
    return by_image


def _best_of_each_category(detections: list[dict[str, Any]]) -> list[dict[str, Any]]:
    ordered = sorted(detections, key=lambda d: -d["score"])
    if len(ordered) <= MAX_DETECTIONS:
        return ordered
    kept: list[dict[str, Any]] = []
    counts: dict[int, int] = defaultdict(int)
    for detection in ordered:
        counts[detection["category_id"]] += 1
        if counts[detection["category_id"]] <= MAX_DETECTIONS:
            kept.append(detection)
    return kept


def _shapes(records: Sequence[dict[str, Any]], task: str, size: tuple[int, int]) -> list[Any]:
    if task == "bbox":
        return [record["bbox"] for record in records]
    # Polygons and plain run lengths become compressed ones.
    return [
        s if isinstance(s, dict) and isinstance(s["counts"], str | bytes) else coco_mask.segmToRle(s, size[1], size[0])
        for s in (record["segmentation"] for record in records)
    ]
