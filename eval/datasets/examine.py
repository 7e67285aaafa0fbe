"""What the records of a COCO file alone do not show: its pictures, its masks, and what two splits share."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from eval.coco_check import Fault
from eval.datasets.pictures import Tick, picture_sizes, shared_pictures
from pcd.errors import PCDError

__all__ = ["category_faults", "doubts_about", "picture_faults", "sharing_doubts"]

_APART_PIXELS: Final = 3.0
_APART_SHARE: Final = 0.1
"""Of a box's longer side: by more than both, no rounding sets a mask's bounds and its box apart."""


def picture_faults(coco: Mapping[str, Any], images: Path, threads: int, tick: Tick, phase: str) -> Iterator[Fault]:
    """Images that cannot be read, or have another size than their record says; Detectron2 ends in either."""
    records = coco["images"]
    paths = [images / record["file_name"] for record in records]
    for record, (path, size) in zip(records, picture_sizes(paths, threads, tick, phase), strict=True):
        if isinstance(size, PCDError):
            yield Fault("image unreadable", str(size))
        elif size != (record["width"], record["height"]):
            stated, found = f"{record['width']} x {record['height']}", f"{size[0]} x {size[1]}"
            turned = " (turned by its EXIF record?)" if size == (record["height"], record["width"]) else ""
            yield Fault("image size", f"image {path.name} is stated as {stated} and has {found} pixels{turned}")


def category_faults(train: Mapping[str, Any], val: Mapping[str, Any]) -> Iterator[Fault]:
    """What sets the splits' categories apart, the first difference named."""
    ours, theirs = ({c["id"]: c["name"] for c in coco["categories"]} for coco in (train, val))
    different = sorted(ours.items() ^ theirs.items())
    if different:
        number, _ = different[0]
        there = " and ".join(f'"{names[number]}"' if number in names else "missing" for names in (ours, theirs))
        yield Fault("categories", f"list different categories: {number} is {there} in training and evaluation")
    for names in (ours, theirs):
        (name, times), *_ = Counter(names.values()).most_common(1)
        if times > 1:
            yield Fault("category names", f'two categories bear the name "{name}"; rename one')
            return


def doubts_about(coco: Mapping[str, Any], split: str) -> Iterator[Fault]:
    """What can be trained on, and is likely to be a mistake."""
    seen: set[tuple[Any, ...]] = set()
    for annotation in coco["annotations"]:
        who = f"{split}: annotation {annotation['id']}"
        x, y, width, height = annotation["bbox"]
        if width <= 0 or height <= 0:
            yield Fault("no area", f"{who} has the box {annotation['bbox']} without area; nothing is learnt from it")
        if not annotation["iscrowd"]:
            this = (annotation["image_id"], annotation["category_id"], x, y, width, height)
            if this in seen:
                yield Fault("object doubled", f"{who} repeats another of its image, category and box")
            seen.add(this)
    for annotation, bounds in _mask_bounds(coco["annotations"]):
        who = f"{split}: annotation {annotation['id']}"
        if bounds is None:
            yield Fault("mask empty", f"{who} has an empty mask")
        elif _are_apart(annotation["bbox"], bounds):
            rounded = [round(number, 1) for number in bounds]
            yield Fault("mask and box", f"{who} has the box {annotation['bbox']}, and its mask fills {rounded}")
    names = Counter(image["file_name"] for image in coco["images"])
    for name, times in names.items():
        if times > 1:
            yield Fault("image doubled", f"{split}: {name} stands there {times} times")
    found = {a["category_id"] for a in coco["annotations"] if not a["iscrowd"]}
    for category in coco["categories"]:
        if category["id"] not in found:
            what = "cannot be learnt" if split == "train" else "has no AP"
            yield Fault("category empty", f'{split}: the category "{category["name"]}" has no object and {what}')


def sharing_doubts(train: Iterable[Path], val: Iterable[Path]) -> Iterator[Fault]:
    """Images of the evaluation that are trained on, byte for byte: their AP says nothing."""
    for ours, theirs in shared_pictures(train, val):
        yield Fault("leak", f"the evaluation's {theirs.name} is the training's {ours.name}, byte for byte")


def _mask_bounds(annotations: Iterable[Mapping[str, Any]]) -> Iterator[tuple[Mapping[str, Any], list[float] | None]]:
    """Each annotation with a mask, and the x, y, width, height that the mask fills."""
    from pycocotools import mask as coco_mask

    for annotation in annotations:
        mask = annotation.get("segmentation")
        if not mask:  # a set of boxes
            continue
        if isinstance(mask, list):
            across = [x for polygon in mask for x in polygon[::2]]
            down = [y for polygon in mask for y in polygon[1::2]]
            yield annotation, [min(across), min(down), max(across) - min(across), max(down) - min(down)]
        else:
            rle = coco_mask.frPyObjects(mask, *mask["size"]) if isinstance(mask["counts"], list) else mask
            yield annotation, coco_mask.toBbox(rle).tolist() if coco_mask.area(rle) else None


def _are_apart(box: list[float], bounds: list[float]) -> bool:
    allowed = max(_APART_PIXELS, _APART_SHARE * max(box[2], box[3]))
    ours, theirs = ((x, y, x + width, y + height) for x, y, width, height in (box, bounds))
    return any(abs(a - b) > allowed for a, b in zip(ours, theirs, strict=True))
