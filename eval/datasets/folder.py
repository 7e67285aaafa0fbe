"""Which set lies in a folder: told by its layout, so that a user names the folder and nothing else."""

import os.path
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from eval.coco_check import clipped, leaves_its_folder
from eval.coco_file import parse_coco
from eval.settings import CityscapesSet, ClassSet, CocoSet, LabelledSet, VocSet
from pcd.errors import PCDError

__all__ = ["recognise"]

_WORDS: Final = {"train": ("train",), "val": ("val", "valid", "validation", "test")}
"""Of a split, in a file's name or its folder's; what stands first is taken first."""
_LOOKED_THROUGH: Final = 3
"""Folders deep, in which annotations are looked for."""
_KINDS: Final = (
    "COCO (two JSON files with train and val in their names, or in folders of these names), VOCdevkit, Cityscapes, or "
    "train/<class>/ and val/<class>/"
)


def recognise(folder: Path) -> LabelledSet:
    """The set in `folder`; no image is looked at.

    COCO's format is recognised as COCO itself unpacks (annotations/instances_train2017.json, train2017/), as Roboflow
    exports it (train/_annotations.coco.json, valid/…), and in most folders that keep to either idea.

    Raises:
        PCDError: there is no folder, no such layout, or more than one answer.
    """
    if not folder.is_dir():
        raise PCDError(f"{folder} is no folder; give one that holds a labelled set: {_KINDS}")
    if (folder / "leftImg8bit").is_dir() and (folder / "gtFine").is_dir():
        return CityscapesSet(folder=folder)
    if any((folder / year).is_dir() for year in ("VOC2007", "VOC2012")):
        return _voc(folder)
    if (folder / "ImageSets").is_dir() and (folder / "JPEGImages").is_dir():
        return _voc(folder.absolute().parent)
    annotations = {split: _annotations(folder, split) for split in _WORDS}
    if annotations["train"] and annotations["val"]:
        train, val = annotations["train"], annotations["val"]
        return CocoSet(
            train_annotations=train, train_images=_images_of(train, folder, "train"),
            val_annotations=val, val_images=_images_of(val, folder, "val"),
        )  # fmt: skip
    if any(annotations.values()):
        missing = next(split for split, path in annotations.items() if path is None)
        raise PCDError(f"{folder} has no annotations with {' or '.join(_WORDS[missing])} in their name; split the set")
    if all((folder / split).is_dir() for split in ("train", "val")):
        return ClassSet(folder=folder)
    raise PCDError(f"{folder} holds no labelled set that is known: {_KINDS}")


def _voc(folder: Path) -> VocSet:
    """VOC 07+12 where both years are there, else train and val of the one."""
    lists = {
        f"{year}_{part}"
        for year in (2007, 2012)
        for part in ("train", "val", "trainval", "test")
        if (folder / f"VOC{year}" / "ImageSets" / "Main" / f"{part}.txt").is_file()
    }
    has_test = "2007_test" in lists
    train = tuple(name for name in ("2007_trainval", "2012_trainval") if name in lists)
    if has_test and train:
        return VocSet(folder=folder, train=train)
    for year in (2012, 2007):
        if {f"{year}_train", f"{year}_val"} <= lists:
            return VocSet(folder=folder, train=(f"{year}_train",), val=f"{year}_val")
    raise PCDError(f"{folder} has neither trainval and 2007's test nor train and val in its ImageSets/Main")


def _annotations(folder: Path, split: str) -> Path | None:
    """The one JSON file of objects whose name, or whose folder's, has the split's word."""
    files = list(_json_files(folder, _LOOKED_THROUGH))
    for word in _WORDS[split]:
        named = [path for path in files if _has_word(path.stem, word)]
        found = named or [p for p in files if p.parent != folder and _has_word(p.parent.name, word)]
        objects = [path for path in found if path.stem.startswith("instances")]  # COCO's captions lie beside them
        found = objects or found
        if len(found) > 1:
            names = " and ".join(str(path.relative_to(folder)) for path in found[:2])
            raise PCDError(f"{folder}: {names} may both be the annotations of {split}; keep one there, or write `sets`")
        if found:
            return found[0]
    return None


def _has_word(name: str, word: str) -> bool:
    """train in instances_train2017 and in train-v2, not in trainval or restrained."""
    return re.search(rf"(?<![a-z]){word}(?![a-z])", name.lower()) is not None


def _json_files(folder: Path, depth: int) -> Iterator[Path]:
    yield from sorted(folder.glob("*.json"))
    if depth > 1:
        for place in sorted(folder.iterdir()):
            if place.is_dir() and not place.name.startswith("."):
                yield from _json_files(place, depth - 1)


def _images_of(annotations: Path, folder: Path, split: str) -> Path:
    """The first folder, of those where people keep them, that has the first image which the annotations name."""
    name = _first_image(annotations)
    beside = annotations.parent
    candidates = [beside, beside / "images", beside / "data", folder, folder / "images", folder / "data"]
    for root in (folder, folder / "images"):
        if root.is_dir():
            candidates += [p for p in sorted(root.iterdir()) if p.is_dir() and _is_of(p.name, split)]
    candidates += [place / "images" for place in candidates]
    for candidate in candidates:
        if os.path.isfile(candidate / name):  # noqa: PTH113 (Path's raises at a name that is too long)
            return candidate
    raise PCDError(f"{annotations} names the image {clipped(name)}, which lies in none of the folders of {folder}")


def _is_of(name: str, split: str) -> bool:
    return any(_has_word(name, word) for word in _WORDS[split])


def _first_image(annotations: Path) -> str:
    try:
        name = str(parse_coco(annotations)["images"][0]["file_name"])
    except (LookupError, TypeError):
        raise PCDError(f"{annotations} is no COCO file: it has no list of images with a file_name each") from None
    if leaves_its_folder(name):
        raise PCDError(
            f"{annotations} names the image {clipped(name)}, which leaves its folder; make its file names relative to "
            "the folder of its images"
        )
    return name
