"""Is this COCO file one that a detector can be trained and evaluated on? The first fault is named, or all of them."""

import os.path
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from eval.coco_file import parse_coco
from eval.datasets.run_lengths import why_no_mask
from pcd.errors import PCDError

__all__ = ["Fault", "check_coco", "clipped", "coco_faults", "leaves_its_folder", "why_nothing_to_learn"]

_SLACK: Final = 1.0
"""Pixels by which a box may leave its image: annotators' roundings."""
_LONGEST_NAME: Final = 120

_Finite = Annotated[float, Field(allow_inf_nan=False)]
_Polygon = Annotated[list[_Finite], Field(min_length=6)]
"""x, y, x, y, …: at least a triangle."""


@dataclass(frozen=True, slots=True)
class Fault:
    kind: str
    """Faults of one kind are counted, and the first one's words stand for all of them."""
    words: str


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
    segmentation: list[_Polygon] | _Rle = Field(default_factory=list)
    """Empty: none was given, as in a set of boxes; Roboflow exports those with an empty list."""
    area: _Finite = Field(ge=0)
    iscrowd: Literal[0, 1]
    ignore: Any = 0


class _Coco(_Record):
    images: list[_Image] = Field(min_length=1)
    annotations: list[_Annotation]
    categories: list[_Category] = Field(min_length=1)


def check_coco(annotations: Path, images: Path) -> dict[str, Any]:
    """Return the parsed file. Masks may be missing, if all of them are.

    Raises:
        PCDError: the file is missing or no COCO JSON, a record lacks a field or has one of the wrong kind, ids are
            doubled or dangling, a box lies outside its image, a mask is none of its image's size, or an image file is
            missing or lies outside `images`.
    """
    raw = parse_coco(annotations)
    for fault in coco_faults(raw, images):
        raise PCDError(f"{annotations}: {fault.words}")
    return raw


def leaves_its_folder(name: str) -> bool:
    """Of an image's file name: absolute, or with a step upwards. Such a set cannot be moved, nor told from another."""
    return PurePath(name).is_absolute() or ".." in PurePath(name).parts


def clipped(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}… ({len(name):,} characters)"


def coco_faults(raw: dict[str, Any], images: Path) -> Iterator[Fault]:
    """Each fault of a parsed file in turn; those between records are looked for where the records are whole.

    Args:
        images: the folder that its file names are relative to.
    """
    try:
        coco = _Coco.model_validate(raw)
    except ValidationError as error:
        yield from _malformed(error, raw)
        return
    for kind, records in (("images", coco.images), ("annotations", coco.annotations), ("categories", coco.categories)):
        yield from _doubled_ids(kind, [record.id for record in records])
    for image in coco.images:
        name = clipped(image.file_name)
        if leaves_its_folder(image.file_name):
            yield Fault("image file name", f"image {name} leaves its folder; file names are relative to {images}")
        elif not os.path.isfile(images / image.file_name):  # noqa: PTH113 (Path's raises at a name that is too long)
            yield Fault("image file missing", f"image {name} is not in {images}; check the folder")
    by_id = {image.id: image for image in coco.images}
    categories = {category.id for category in coco.categories}
    has_masks = any(annotation.segmentation for annotation in coco.annotations)
    for annotation in coco.annotations:
        fault = _fault(annotation, by_id, categories, has_masks)
        if fault:
            yield Fault(fault.kind, f"annotation {annotation.id} {fault.words}")


def why_nothing_to_learn(coco: Mapping[str, Any], who: str) -> str | None:
    """A line about `who` where no annotation of whole records is an object; else None."""
    if all(annotation["iscrowd"] for annotation in coco["annotations"]):
        return f"{who} has no object that is not a crowd; nothing can be learnt or measured"
    return None


def _malformed(error: ValidationError, raw: dict[str, Any]) -> Iterator[Fault]:
    """annotation 7: bbox: list should have at least 4 items …; one fault a record."""
    seen = set()
    for fault in error.errors(include_url=False, include_context=False):
        kind, *place = fault["loc"]
        if not place:
            yield Fault(f"{kind} empty", f'the list "{kind}" is empty; there is nothing to train on')
            continue
        if (kind, place[0]) in seen:
            continue
        seen.add((kind, place[0]))
        record = raw[str(kind)][int(place[0])]
        name = record.get("id", f"number {place[0]}") if isinstance(record, dict) else f"number {place[0]}"
        field = ".".join(str(part) for part in place[1:])
        singular = {"images": "image", "annotations": "annotation", "categories": "category"}[str(kind)]
        same = f"{kind} {place[1] if place[1:] else ''} {fault['type']}"
        if fault["type"] == "missing":
            yield Fault(same, f"{singular} {name} has no {field}")
        else:
            message = fault["msg"][:1].lower() + fault["msg"][1:]
            yield Fault(same, f"{singular} {name}: {field + ': ' if field else ''}{message}")


def _doubled_ids(kind: str, ids: list[int]) -> Iterator[Fault]:
    seen: set[int] = set()
    for number in ids:
        if number in seen:
            yield Fault(f"{kind} doubled", f"two {kind} have the id {number}; ids must be unique")
        seen.add(number)


def _fault(
    annotation: _Annotation, images: dict[int, _Image], categories: set[int], has_masks: bool
) -> Fault | None:  # fmt: skip
    image = images.get(annotation.image_id)
    if image is None:
        return Fault("image id", f"belongs to image {annotation.image_id}, which the file does not list")
    if annotation.category_id not in categories:
        known = f"{sorted(categories)}" if len(categories) <= 20 else f"{len(categories)} others"
        return Fault("category", f"has category {annotation.category_id}, which the file does not list ({known})")
    x, y, width, height = annotation.bbox
    inside = x >= -_SLACK and y >= -_SLACK and x + width <= image.width + _SLACK and y + height <= image.height + _SLACK
    if not inside or width < 0 or height < 0:
        pixels = f"{image.width} x {image.height} pixels"
        outside = f"has the box {annotation.bbox}, outside its image of {pixels}; boxes are x, y, width, height"
        return Fault("box", outside)
    if annotation.ignore != 0:
        hint = "take the mark away; of a crowd (iscrowd 1) the same is said"
        return Fault("ignore", f'is marked "ignore", which Detectron2 does not take; {hint}')
    mask = annotation.segmentation
    if isinstance(mask, _Rle):
        if mask.size != [image.height, image.width]:
            return Fault("mask size", f"has a mask of {mask.size}, and its image is {[image.height, image.width]}")
        if wrong := why_no_mask(mask.counts, image.height, image.width):
            return Fault("mask counts", wrong)
    elif has_masks and not mask:
        return Fault("mask missing", "has no segmentation, and others have one; give masks to all objects or to none")
    elif any(len(polygon) % 2 for polygon in mask):
        return Fault("mask odd", "has a polygon with an odd number of coordinates; they are x, y, x, y, …")
    return None
