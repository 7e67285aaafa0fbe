"""`pcd data check`: everything that is wrong with a labelled set, and what is merely odd, without training on it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eval.coco_check import Fault, coco_faults, parse_coco
from eval.datasets.cityscapes import read_cityscapes
from eval.datasets.classes import list_classes
from eval.datasets.examine import category_faults, doubts_about, picture_faults, sharing_doubts
from eval.datasets.facts import SplitFacts, fit_detector, split_facts
from eval.datasets.layouts import image_folders
from eval.datasets.own import in_one_line_each
from eval.datasets.pictures import Tick
from eval.datasets.voc import read_voc
from eval.settings import CityscapesSet, ClassSet, CocoSet, LabelledSet, VocSet
from pcd.errors import PCDError

__all__ = ["Examination", "examine_set"]


@dataclass(frozen=True, slots=True)
class Examination:
    faults: list[str]
    """A line for each kind: what keeps the set from being trained and evaluated on."""
    warnings: list[str]
    """A line for each kind: what can be trained on and is likely to be a mistake."""
    facts: dict[str, SplitFacts] = field(default_factory=dict)
    """Of `train` and `val`, where they have objects and no fault."""
    fit: dict[str, Any] = field(default_factory=dict)
    """What of the protocol's sizes and anchors does not fit the set, and what would."""
    classes: tuple[str, ...] = ()
    """Of a set of classes."""


def examine_set(
    settings: LabelledSet, threads: int, tick: Tick, protocol: Mapping[str, Any] | None = None
) -> Examination:
    """Look at all of it. Of sets in COCO's format every fault is found, of published ones the first.

    Args:
        protocol: a detector's settings as plain data, to be compared with the set.
    """
    try:
        if isinstance(settings, ClassSet):
            classes, *_ = list_classes(settings.folder)
            return Examination([], [], classes=classes)
        coco, faults, warnings = _read(settings, threads, tick)
    except PCDError as error:
        return Examination([str(error)], [])
    if not faults:
        folders = image_folders(settings)
        paths = {s: [folders[f"{s}_images"] / i["file_name"] for i in one["images"]] for s, one in coco.items()}
        tick("what the splits share", 0, 1)
        doubts = [*doubts_about(coco["train"], "train"), *doubts_about(coco["val"], "val")]
        warnings += in_one_line_each([*doubts, *sharing_doubts(paths["train"], paths["val"])])
    for split, record in coco.items():
        if not faults and all(a["iscrowd"] for a in record["annotations"]):
            faults.append(f"{split} has no object that is not a crowd; nothing can be learnt or measured")
    if faults:
        return Examination(faults, warnings)
    fit = fit_detector(coco["train"], protocol) if protocol else {}
    return Examination([], warnings, {split: split_facts(record) for split, record in coco.items()}, fit)


def _read(
    settings: CocoSet | VocSet | CityscapesSet, threads: int, tick: Tick
) -> tuple[dict[str, dict[str, Any]], list[str], list[str]]:
    """The splits, their faults and warnings. Raises PCDError if one cannot be read at all."""
    match settings:
        case VocSet():
            train, told = read_voc(settings.folder, settings.train, threads, tick)
            val, more = read_voc(settings.folder, (settings.val,), threads, tick)
            return {"train": train, "val": val}, [], [*told, *more]
        case CityscapesSet():
            return {s: read_cityscapes(settings.folder, s, threads, tick) for s in ("train", "val")}, [], []
        case CocoSet():
            files = {"train": settings.train_annotations, "val": settings.val_annotations}
            folders = image_folders(settings)
            coco = {split: parse_coco(path) for split, path in files.items()}
            found = {
                split: _coco_faults(record, folders[f"{split}_images"], threads, tick, split)
                for split, record in coco.items()
            }
            faults = [f"{files[split]}: {line}" for split, lines in found.items() for line in lines]
            if not faults:
                faults = [f"the splits {fault.words}" for fault in category_faults(coco["train"], coco["val"])]
            return coco, faults, []


def _coco_faults(coco: dict[str, Any], images: Path, threads: int, tick: Tick, split: str) -> list[str]:
    tick(f"{split} annotations", 0, 1)
    faults: list[Fault] = list(coco_faults(coco, images))
    if not faults:
        faults = list(picture_faults(coco, images, threads, tick, f"{split} images"))
    return in_one_line_each(faults)
