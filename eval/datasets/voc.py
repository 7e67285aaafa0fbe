"""Pascal VOC's annotations as COCO JSON.

Boxes become half-open: VOC counts pixels from 1 and names the last one, so (xmin - 1, ymin - 1) to (xmax, ymax)
(facebookresearch/detectron2@02b5c4e2 detectron2/data/datasets/pascal_voc.py). Objects marked `difficult` train as all
others do, as there; the mark stays with them for the evaluation (eval.datasets.voc_score).
"""

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from eval.datasets.layouts import voc_images, voc_parts
from eval.datasets.pictures import Tick, picture_sizes
from pcd.errors import PCDError

__all__ = ["VOC_CLASSES", "read_voc"]

VOC_CLASSES: Final = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip

_NUMBERS: Final = {name: number for number, name in enumerate(VOC_CLASSES, start=1)}
_SLACK: Final = 1.0
"""Pixels by which a box may leave its image, as in eval.coco_check."""


def read_voc(folder: Path, lists: Sequence[str], threads: int, tick: Tick) -> tuple[dict[str, Any], list[str]]:
    """The images of `lists` (2007_trainval, …) as a COCO record, and warnings.

    File names are relative to `folder`, the VOCdevkit. `info.year` is that of the first list; annotations carry
    `difficult`, 0 or 1, and no segmentation.

    Raises:
        PCDError: a folder, list, annotation file or image is missing or unreadable, a class is none of the twenty, or a
            box leaves its image.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    records = []
    for name in lists:
        year, _ = voc_parts(name)
        records += [(f"{year}/JPEGImages/{one}.jpg", folder / year / "Annotations" / f"{one}.xml")
                    for one in voc_images(folder, name)]  # fmt: skip
    paths = [folder / file_name for file_name, _ in records]
    misstated = []
    for (file_name, xml), (_, size) in zip(records, picture_sizes(paths, threads, tick, "images"), strict=True):
        if isinstance(size, PCDError):
            raise size
        root = _parse(xml)
        if _stated_size(root) != size:
            misstated.append(f"{xml.name} says {_stated_size(root)} and the image has {size}")
        images.append({"id": len(images) + 1, "file_name": file_name, "width": size[0], "height": size[1]})
        for element in root.findall("object"):
            annotation = _annotation(element, xml, size)
            annotations.append({"id": len(annotations) + 1, "image_id": len(images), **annotation})
    coco = {
        "info": {"description": f"Pascal VOC {', '.join(lists)}", "year": int(voc_parts(lists[0])[0][3:])},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for name, number in _NUMBERS.items()],
    }
    told = f"{len(misstated)} annotation files state another size than their image has; the image's is taken"
    return coco, [f"{told} ({misstated[0]})"] if misstated else []


def _parse(xml: Path) -> ET.Element:
    try:
        return ET.parse(xml).getroot()  # noqa: S314 (expat, which Python ships, bounds entities since 2.4.1)
    except FileNotFoundError:
        raise PCDError(f"annotation file {xml} does not exist; unpack the VOC archive again") from None
    except OSError as error:
        raise PCDError(f"annotation file {xml} cannot be read ({error.strerror})") from None
    except (ET.ParseError, LookupError, ValueError) as error:  # the last two of an encoding that Python lacks
        raise PCDError(f"{xml} is not XML ({error}); unpack the VOC archive again") from None


def _stated_size(root: ET.Element) -> tuple[int, int] | None:
    try:
        return int(root.findtext("size/width", "")), int(root.findtext("size/height", ""))
    except ValueError:
        return None


def _annotation(element: ET.Element, xml: Path, size: tuple[int, int]) -> dict[str, Any]:
    name = (element.findtext("name") or "").strip()
    if name not in _NUMBERS:
        close = get_close_matches(name, VOC_CLASSES, n=1)
        hint = f'did you mean "{close[0]}"?' if close else "a set with classes of its own: bring it to COCO's format"
        raise PCDError(f'{xml}: "{name}" is no class of VOC; {hint}')
    # VOC 2012 has boxes with fractions; `part`s of a person have boxes of their own, which findtext does not reach.
    try:
        left, top, right, bottom = (
            float(element.findtext(f"bndbox/{e}", "")) for e in ("xmin", "ymin", "xmax", "ymax")
        )
    except ValueError:
        raise PCDError(f"{xml}: a {name} has no whole box; xmin, ymin, xmax and ymax are numbers") from None
    x, y, width, height = left - 1, top - 1, right - left + 1, bottom - top + 1
    inside = x >= -_SLACK and y >= -_SLACK and right <= size[0] + _SLACK and bottom <= size[1] + _SLACK
    if not inside or width < 1 or height < 1:
        box = f"({left:g}, {top:g}) to ({right:g}, {bottom:g})"
        raise PCDError(f"{xml}: the box {box} of a {name} lies outside its image of {size[0]} x {size[1]} pixels")
    return {
        "category_id": _NUMBERS[name],
        "bbox": [x, y, width, height],
        "area": width * height,
        "iscrowd": 0,
        "difficult": int(element.findtext("difficult", "0").strip() == "1"),
    }
