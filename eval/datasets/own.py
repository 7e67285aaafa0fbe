"""Sets of the user's own, of every layout, checked and brought to what eval.data describes; no image is copied."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from eval.data import DataSet, Score, Split
from eval.datasets.classes import list_classes
from eval.datasets.layouts import image_folders
from eval.datasets.pictures import Tick
from eval.datasets.read import Coco, read_set
from eval.settings import ClassSet, CocoSet, LabelledSet
from pcd.errors import PCDError
from pcd.stage import write_text

__all__ = ["describe_labelled", "prepare_labelled"]

_SPLITS: Final = ("train", "val")


def prepare_labelled(settings: LabelledSet, out: Path, threads: int, tick: Tick) -> tuple[DataSet, list[str]]:
    """Check a set, leave in `out` what other layouts than COCO's need, and describe it; with warnings, a line each.

    Raises:
        PCDError: the first fault that keeps it from being trained and evaluated on.
    """
    if isinstance(settings, ClassSet):
        return _prepare_classes(settings, out, tick)
    read = read_set(settings, threads, tick)
    if read.faults:
        raise PCDError(read.faults[0])
    own = None if isinstance(settings, CocoSet) else settings.folder
    name = settings.train_annotations.stem if isinstance(settings, CocoSet) else settings.kind
    return describe_labelled(name, _splits(settings, read.coco, out), read.coco, settings.kind, own), read.warnings


def describe_labelled(
    name: str, splits: Mapping[str, Split], coco: Mapping[str, Coco], score: Score, folder: Path | None
) -> DataSet:
    """Of splits without a fault."""
    digest, counts = hashlib.sha256(), {"pool": 0}
    for split, record in coco.items():
        for path in _pictures(splits[split], record):
            digest.update(os.fsencode(path.relative_to(splits[split].images)) + b"\0%d\n" % path.stat().st_size)
        digest.update(json.dumps(record, sort_keys=True).encode())
        counts |= {split: len(record["images"]), f"{split}_annotations": len(record["annotations"])}
    categories = tuple(c["name"] for c in sorted(coco["train"]["categories"], key=lambda c: int(c["id"])))
    return DataSet(name, None, splits["train"], splits["val"], categories, counts, digest.hexdigest(), score, folder)


def _splits(settings: LabelledSet, coco: Mapping[str, Coco], out: Path) -> dict[str, Split]:
    """The user's own annotation files; those of other layouts are written to `out`."""
    folders = image_folders(settings)
    if isinstance(settings, CocoSet):
        return {
            "train": Split(folders["train_images"], settings.train_annotations),
            "val": Split(folders["val_images"], settings.val_annotations),
        }
    for split, record in coco.items():
        write_text(out / f"{split}.json", json.dumps(record))
    return {split: Split(folders[f"{split}_images"], out / f"{split}.json") for split in _SPLITS}


def _pictures(split: Split, coco: Coco) -> list[Path]:
    return [split.images / image["file_name"] for image in coco["images"]]


def _prepare_classes(settings: ClassSet, out: Path, tick: Tick) -> tuple[DataSet, list[str]]:
    tick("listing the images", 0, 1)
    classes, train, val = list_classes(settings.folder)
    digest = hashlib.sha256(json.dumps(classes).encode())
    splits = {}
    for split, listing in (("train", train), ("val", val)):
        splits[split] = Split(listing.folder, out / f"{split}_images.json")
        write_text(splits[split].annotations, json.dumps(listing.names))
        digest.update(listing.fingerprint().encode())
    data = DataSet(
        "classes", None, splits["train"], splits["val"], classes, {"pool": 0, "train": len(train), "val": len(val)},
        digest.hexdigest(), score=None, folder=settings.folder,
    )  # fmt: skip
    return data, []
