"""Sets of the user's own, of every layout, checked and brought to what eval.data describes; no image is copied."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from eval.coco_check import Fault, check_coco
from eval.data import DataSet, Score, Split
from eval.datasets.cityscapes import read_cityscapes
from eval.datasets.classes import list_classes
from eval.datasets.examine import category_faults, doubts_about, picture_faults, sharing_doubts
from eval.datasets.layouts import image_folders
from eval.datasets.pictures import Tick
from eval.datasets.voc import read_voc
from eval.settings import CityscapesSet, ClassSet, CocoSet, LabelledSet, VocSet
from pcd.errors import PCDError
from pcd.stage import write_text

__all__ = ["describe_labelled", "in_one_line_each", "prepare_labelled"]

Coco = Mapping[str, Any]

_SPLITS: Final = ("train", "val")


def prepare_labelled(settings: LabelledSet, out: Path, threads: int, tick: Tick) -> tuple[DataSet, list[str]]:
    """Check a set, leave in `out` what other layouts than COCO's need, and describe it; with warnings, a line each.

    Raises:
        PCDError: the first fault that keeps it from being trained and evaluated on.
    """
    if isinstance(settings, ClassSet):
        return _prepare_classes(settings, out, tick)
    warnings: list[str] = []
    score: Score
    match settings:
        case CocoSet():
            name, score, coco = settings.train_annotations.stem, "coco", _checked(settings, threads, tick)
        case VocSet():
            name, score = "voc", "voc"
            train, told = read_voc(settings.folder, settings.train, threads, tick)
            val, more = read_voc(settings.folder, (settings.val,), threads, tick)
            coco, warnings = {"train": train, "val": val}, [*told, *more]
        case CityscapesSet():
            name, score = "cityscapes", "cityscapes"
            coco = {split: read_cityscapes(settings.folder, split, threads, tick) for split in _SPLITS}
    splits = _splits(settings, coco, out)
    tick("what the splits share", 0, 1)
    warnings += in_one_line_each([
        *doubts_about(coco["train"], "train"), *doubts_about(coco["val"], "val"),
        *sharing_doubts(*(_pictures(splits[split], coco[split]) for split in _SPLITS)),
    ])  # fmt: skip
    own = None if isinstance(settings, CocoSet) else settings.folder
    return describe_labelled(name, splits, coco, score, own), warnings


def describe_labelled(
    name: str, splits: Mapping[str, Split], coco: Mapping[str, Coco], score: Score, folder: Path | None
) -> DataSet:
    """Of checked splits. Raises PCDError if one of them has no object that is not a crowd."""
    for split, record in coco.items():
        if all(annotation["iscrowd"] for annotation in record["annotations"]):
            raise PCDError(
                f"{splits[split].annotations} has no object that is not a crowd; nothing can be learnt or measured"
            )
    digest, counts = hashlib.sha256(), {"pool": 0}
    for split, record in coco.items():
        for path in _pictures(splits[split], record):
            digest.update(os.fsencode(path.relative_to(splits[split].images)) + b"\0%d\n" % path.stat().st_size)
        digest.update(json.dumps(record, sort_keys=True).encode())
        counts |= {split: len(record["images"]), f"{split}_annotations": len(record["annotations"])}
    categories = tuple(c["name"] for c in sorted(coco["train"]["categories"], key=lambda c: int(c["id"])))
    return DataSet(name, None, splits["train"], splits["val"], categories, counts, digest.hexdigest(), score, folder)


def in_one_line_each(faults: Iterable[Fault]) -> list[str]:
    """The first fault of each kind in its words, and how many more there are."""
    first: dict[str, str] = {}
    counts: dict[str, int] = {}
    for fault in faults:
        first.setdefault(fault.kind, fault.words)
        counts[fault.kind] = counts.get(fault.kind, 0) + 1
    return [words + (f" ({counts[kind] - 1:,} more like it)" if counts[kind] > 1 else "")
            for kind, words in first.items()]  # fmt: skip


def _checked(settings: CocoSet, threads: int, tick: Tick) -> dict[str, dict[str, Any]]:
    files = {"train": settings.train_annotations, "val": settings.val_annotations}
    folders, coco = image_folders(settings), dict[str, dict[str, Any]]()
    for split, annotations in files.items():
        images = folders[f"{split}_images"]
        tick(f"{split} annotations", 0, 1)
        coco[split] = check_coco(annotations, images)
        for fault in picture_faults(coco[split], images, threads, tick, f"{split} images"):
            raise PCDError(f"{annotations}: {fault.words}")
    for fault in category_faults(coco["train"], coco["val"]):
        raise PCDError(f"{files['train']} and {files['val']} {fault.words}")
    return coco


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
