"""A labelled set of objects, read and looked at in one way, for `pcd data check` as for the data stage."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from eval.coco_check import Fault, coco_faults, why_nothing_to_learn
from eval.coco_file import parse_coco
from eval.datasets.cityscapes import read_cityscapes
from eval.datasets.cityscapes_score import MISSING_SCRIPTS, has_scripts
from eval.datasets.examine import category_faults, doubts_about, picture_faults, sharing_doubts
from eval.datasets.layouts import image_folders, voc_departure
from eval.datasets.pictures import Tick
from eval.datasets.voc import read_voc
from eval.settings import CityscapesSet, CocoSet, VocSet

__all__ = ["Coco", "ReadSet", "in_one_line_each", "read_set"]

Coco = Mapping[str, Any]

_SPLITS: Final = ("train", "val")
_CITYSCAPES_IMAGES: Final = {"train": 2975, "val": 500}


@dataclass(frozen=True, slots=True)
class ReadSet:
    coco: dict[str, dict[str, Any]]
    """train and val as COCO records."""
    faults: list[str]
    """A line for each kind: what keeps the set from being trained and evaluated on."""
    warnings: list[str]
    """A line for each kind: what can be trained on and is likely to be a mistake; without faults alone."""


def read_set(settings: CocoSet | VocSet | CityscapesSet, threads: int, tick: Tick) -> ReadSet:
    """Of sets in COCO's format every fault is found.

    Raises:
        PCDError: the set cannot be read at all; of a published one, its first fault.
    """
    faults: list[str] = []
    warnings: list[str] = []
    match settings:
        case CocoSet():
            coco, faults = _read_coco(settings, threads, tick)
        case VocSet():
            train, told = read_voc(settings.folder, settings.train, threads, tick)
            val, more = read_voc(settings.folder, (settings.val,), threads, tick)
            departure = voc_departure(settings)
            coco, warnings = {"train": train, "val": val}, [*([departure] if departure else []), *told, *more]
        case CityscapesSet():
            coco = {split: read_cityscapes(settings.folder, split, threads, tick) for split in _SPLITS}
            warnings = [*_missing_parts(coco), *([MISSING_SCRIPTS] if not has_scripts() else [])]
    if not faults:
        folders = image_folders(settings)
        paths = {s: [folders[f"{s}_images"] / i["file_name"] for i in one["images"]] for s, one in coco.items()}
        tick("what the splits share", 0, 1)
        doubts = [*doubts_about(coco["train"], "train"), *doubts_about(coco["val"], "val")]
        warnings += in_one_line_each([*doubts, *sharing_doubts(paths["train"], paths["val"])])
        faults = [line for split in _SPLITS if (line := why_nothing_to_learn(coco[split], split))]
    return ReadSet(coco, faults, warnings)


def in_one_line_each(faults: Iterable[Fault]) -> list[str]:
    """The first fault of each kind in its words, and how many more there are."""
    first: dict[str, str] = {}
    counts: dict[str, int] = {}
    for fault in faults:
        first.setdefault(fault.kind, fault.words)
        counts[fault.kind] = counts.get(fault.kind, 0) + 1
    return [words + (f" ({counts[kind] - 1:,} more like it)" if counts[kind] > 1 else "")
            for kind, words in first.items()]  # fmt: skip


def _read_coco(settings: CocoSet, threads: int, tick: Tick) -> tuple[dict[str, dict[str, Any]], list[str]]:
    files = {"train": settings.train_annotations, "val": settings.val_annotations}
    folders = image_folders(settings)
    coco = {split: parse_coco(path) for split, path in files.items()}
    faults: list[str] = []
    for split, record in coco.items():
        found = _coco_faults(record, folders[f"{split}_images"], threads, tick, split)
        faults += [f"{files[split]}: {line}" for line in in_one_line_each(found)]
    if not faults:
        pair = f"{files['train']} and {files['val']}"
        faults = [f"{pair} {fault.words}" for fault in category_faults(coco["train"], coco["val"])]
    return coco, faults


def _coco_faults(coco: dict[str, Any], images: Path, threads: int, tick: Tick, split: str) -> list[Fault]:
    tick(f"{split} annotations", 0, 1)
    # Where records are at fault, looking at their images would tell little more.
    return list(coco_faults(coco, images)) or list(picture_faults(coco, images, threads, tick, f"{split} images"))


def _missing_parts(coco: Mapping[str, Coco]) -> Iterable[str]:
    for split, whole in _CITYSCAPES_IMAGES.items():
        images = len(coco[split]["images"])
        if images != whole:
            hint = "unpack both archives again, unless a part is meant"
            yield f"{split} has {images:,} images, where Cityscapes has {whole:,}; {hint}"
