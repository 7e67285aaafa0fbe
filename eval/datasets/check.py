"""`pcd data check`: everything that is wrong with a labelled set, and what is merely odd, without training on it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from eval.coco_check import Fault
from eval.datasets.classes import list_classes
from eval.datasets.facts import SplitFacts, fit_detector, split_facts
from eval.datasets.pictures import Tick, picture_sizes
from eval.datasets.read import in_one_line_each, read_set
from eval.settings import ClassSet, LabelledSet
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
    """Look at all of it, every image decoded. Of COCO's format every fault is found, of published sets the first.

    Args:
        protocol: a detector's settings as plain data, to be compared with the set.
    """
    try:
        if isinstance(settings, ClassSet):
            return _examine_classes(settings, threads, tick)
        read = read_set(settings, threads, tick)
    except PCDError as error:
        return Examination([str(error)], [])
    if read.faults:
        return Examination(read.faults, read.warnings)
    fit = fit_detector(read.coco["train"], protocol) if protocol else {}
    return Examination([], read.warnings, {split: split_facts(record) for split, record in read.coco.items()}, fit)


def _examine_classes(settings: ClassSet, threads: int, tick: Tick) -> Examination:
    classes, *parts = list_classes(settings.folder)
    faults = []
    for split, listing in zip(("train", "val"), parts, strict=True):
        found = picture_sizes(listing.paths, threads, tick, f"{split} images")
        faults += in_one_line_each(
            Fault("image unreadable", str(size)) for _, size in found if isinstance(size, PCDError)
        )
    return Examination(faults, [], classes=() if faults else classes)
