"""Is this COCO file one that a detector can be trained and evaluated on? The first fault found is named."""

import json
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pcd.errors import PCDError

__all__ = ["check_coco"]

_SLACK: Final = 1.0
"""Pixels by which a box may leave its image: annotators' roundings."""

_Finite = Annotated[float, Field(allow_inf_nan=False)]
_Polygon = Annotated[list[_Finite], Field(min_length=6)]
"""x, y, x, y, …: at least a triangle."""


class _Record(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)  # "5" is no id; fields that are not named here are ignored


class _Image(_Record):
    id: int
    file_name: str
    width: int = Field(gt=0)
    height: int = Field(gt=0)


class _Category(_Record):
    id: int
    name: str


class _Rle(_Record):
    size: list[int] = Field(min_length=2, max_length=2)
    counts: str | list[int]


class _Annotation(_Record):
    id: int
    image_id: int
    category_id: int
    bbox: list[_Finite] = Field(min_length=4, max_length=4)
    segmentation: Annotated[list[_Polygon], Field(min_length=1)] | _Rle
    area: _Finite = Field(ge=0)
    iscrowd: Literal[0, 1]


class _Coco(_Record):
    images: list[_Image] = Field(min_length=1)
    annotations: list[_Annotation]
    categories: list[_Category] = Field(min_length=1)


def check_coco(annotations: Path, images: Path) -> dict[str, Any]:
    """Return the parsed file.

    Raises:
        PCDError: the file is missing or no COCO JSON, a record lacks a field or has one of the wrong kind, ids are
            doubled or dangling, a box lies outside its image, a mask has another size, or an image file is missing.
    """
    raw = _parse(annotations)
    try:
        coco = _Coco.model_validate(raw)
    except ValidationError as error:
        raise PCDError(f"{annotations}: {_first_fault(error, raw)}") from None
    for kind, records in (("images", coco.images), ("annotations", coco.annotations), ("categories", coco.categories)):
        _refuse_doubled_ids(annotations, kind, [record.id for record in records])
    for image in coco.images:
        if not (images / image.file_name).is_file():
            raise PCDError(f"{annotations}: image {image.file_name} is not in {images}; check the folder")
    by_id = {image.id: image for image in coco.images}
    categories = {category.id for category in coco.categories}
    for annotation in coco.annotations:
        fault = _fault(annotation, by_id, categories)
        if fault:
            raise PCDError(f"{annotations}: annotation {annotation.id} {fault}")
    return raw


def _parse(annotations: Path) -> dict[str, Any]:
    try:
        raw = json.loads(annotations.read_text())
    except FileNotFoundError:
        raise PCDError(f"annotation file {annotations} does not exist; check the data settings") from None
    except OSError as error:
        raise PCDError(f"annotation file {annotations} cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise PCDError(f"{annotations} is not JSON ({error}); download or export it again") from None
    for key in ("images", "annotations", "categories"):
        if not isinstance(raw, dict) or not isinstance(raw.get(key), list):
            raise PCDError(f'{annotations} has no list "{key}"; a COCO file has images, annotations and categories')
    whole: dict[str, Any] = raw
    return whole


def _first_fault(error: ValidationError, raw: dict[str, Any]) -> str:
    """annotation 7: bbox: list should have at least 4 items …"""
    fault = error.errors()[0]
    kind, *place = fault["loc"]
    if not place:
        return f'the list "{kind}" is empty; there is nothing to train on'
    record = raw[str(kind)][int(place[0])]
    name = record.get("id", f"number {place[0]}") if isinstance(record, dict) else f"number {place[0]}"
    field = ".".join(str(part) for part in place[1:])
    singular = {"images": "image", "annotations": "annotation", "categories": "category"}[str(kind)]
    if fault["type"] == "missing":
        return f"{singular} {name} has no {field}"
    message = fault["msg"][:1].lower() + fault["msg"][1:]
    return f"{singular} {name}: {field + ': ' if field else ''}{message}"


def _refuse_doubled_ids(annotations: Path, kind: str, ids: list[int]) -> None:
    seen: set[int] = set()
    for number in ids:
        if number in seen:
            raise PCDError(f"{annotations}: two {kind} have the id {number}; ids must be unique")
        seen.add(number)


def _fault(annotation: _Annotation, images: dict[int, _Image], categories: set[int]) -> str | None:
    image = images.get(annotation.image_id)
    if image is None:
        return f"belongs to image {annotation.image_id}, which the file does not list"
    if annotation.category_id not in categories:
        return f"has category {annotation.category_id}, which the file does not list ({sorted(categories)})"
    x, y, width, height = annotation.bbox
    inside = x >= -_SLACK and y >= -_SLACK and x + width <= image.width + _SLACK and y + height <= image.height + _SLACK
    if not inside or width < 0 or height < 0:
        pixels = f"{image.width} x {image.height} pixels"
        return f"has the box {annotation.bbox}, outside its image of {pixels}; boxes are x, y, width, height"
    if isinstance(annotation.segmentation, _Rle):
        if annotation.segmentation.size != [image.height, image.width]:
            return f"has a mask of {annotation.segmentation.size}, and its image is {[image.height, image.width]}"
    elif any(len(polygon) % 2 for polygon in annotation.segmentation):
        return "has a polygon with an odd number of coordinates; they are x, y, x, y, …"
    return None
