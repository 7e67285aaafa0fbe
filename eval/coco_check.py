"""Is this COCO file one that a detector can be trained on? The first fault found is named."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pcd.errors import PCDError

__all__ = ["check_coco"]

_SLACK: Final = 1.0
"""Pixels by which a box may leave its image: annotators' roundings."""


def check_coco(annotations: Path, images: Path) -> dict[str, Any]:
    """Return the parsed file.

    Raises:
        PCDError: the file is missing or no COCO JSON, ids are doubled or dangling, a box lies outside its image, a
            category is unknown, a segmentation is missing, or an image file is.
    """
    coco = _parse(annotations)
    sizes = {}
    for image in coco["images"]:
        _require(image, ("id", "file_name", "width", "height"), "image", annotations)
        if image["id"] in sizes:
            raise PCDError(f"{annotations}: two images have the id {image['id']}; ids must be unique")
        sizes[image["id"]] = (image["width"], image["height"])
        if not (images / image["file_name"]).is_file():
            raise PCDError(f"{annotations}: image {image['file_name']} is not in {images}; check the folder")
    categories = {category["id"] for category in coco["categories"]}
    seen: set[int] = set()
    for annotation in coco["annotations"]:
        _check_annotation(annotation, sizes, categories, annotations)
        if annotation["id"] in seen:
            raise PCDError(f"{annotations}: two annotations have the id {annotation['id']}; ids must be unique")
        seen.add(annotation["id"])
    return coco


def _parse(annotations: Path) -> dict[str, Any]:
    try:
        coco: dict[str, Any] = json.loads(annotations.read_text())
    except FileNotFoundError:
        raise PCDError(f"annotation file {annotations} does not exist; check the data settings") from None
    except ValueError as error:
        raise PCDError(f"{annotations} is not JSON ({error}); download or export it again") from None
    for key in ("images", "annotations", "categories"):
        if not isinstance(coco, dict) or not isinstance(coco.get(key), list):
            raise PCDError(f'{annotations} has no list "{key}"; a COCO file has images, annotations and categories')
    for key in ("images", "categories"):
        if not coco[key]:
            raise PCDError(f'{annotations}: the list "{key}" is empty; there is nothing to train on')
    return coco


def _require(record: Mapping[str, Any], keys: tuple[str, ...], kind: str, annotations: Path) -> None:
    missing = [key for key in keys if key not in record]
    if missing:
        raise PCDError(f"{annotations}: {kind} {record.get('id', '?')} has no {', '.join(missing)}")


def _check_annotation(
    annotation: Mapping[str, Any],
    sizes: Mapping[int, tuple[int, int]],
    categories: set[int],
    annotations: Path,
) -> None:
    _require(annotation, ("id", "image_id", "category_id", "bbox", "segmentation"), "annotation", annotations)
    where = f"{annotations}: annotation {annotation['id']}"
    if annotation["image_id"] not in sizes:
        raise PCDError(f"{where} belongs to image {annotation['image_id']}, which the file does not list")
    if annotation["category_id"] not in categories:
        raise PCDError(
            f"{where} has category {annotation['category_id']}, which the file does not list ({sorted(categories)})"
        )
    x, y, width, height = annotation["bbox"]
    image_width, image_height = sizes[annotation["image_id"]]
    inside = x >= -_SLACK and y >= -_SLACK and x + width <= image_width + _SLACK and y + height <= image_height + _SLACK
    if not inside or width < 0 or height < 0:
        raise PCDError(
            f"{where} has the box {annotation['bbox']}, outside its image of {image_width} x {image_height} pixels; "
            "boxes are x, y, width, height"
        )
