"""Why detections are wrong, and what each kind of mistake costs: TIDE (Bolya et al. 2020, arXiv 2008.08115).

Kinds and remedies as in dbolya/tide@09eeffb; what counts as right is COCO's matching at an IoU of 0.5.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from eval.coco.matches import ImageMatches
from eval.coco.overlaps import IOU_THRESHOLDS, RECALLS, ImageOverlaps

__all__ = ["KINDS", "Kind", "Mistakes", "count_mistakes"]

Kind = Literal["classification", "localisation", "both", "duplicate", "background", "missed"]
KINDS: Final[dict[Kind, str]] = {
    "classification": "covers an object of another category well",
    "localisation": "covers an object of its category, but not well",
    "both": "covers an object of another category, and not well",
    "duplicate": "covers an object of its category well that a surer detection has found",
    "background": "covers no object",
    "missed": "an object that no detection found, and that no mended localisation or category would find",
}

_FOREGROUND: Final = float(IOU_THRESHOLDS[0])
_BACKGROUND: Final = 0.1

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Mistakes:
    """Of one set of detections at an IoU of 0.5."""

    ap50: float
    """Per cent."""
    counts: dict[Kind, int]
    """Detections, and for `missed` objects."""
    costs: dict[Kind, float]
    """Points by which AP50 would rise if this kind alone were mended, never below 0; they need not add up."""


@dataclass(slots=True)
class _Found:
    """Detections that count, one row each."""

    score: Floats
    category: NDArray[np.int64]
    true: NDArray[np.bool_]
    kind: NDArray[np.int64]
    """Place in KINDS; -1 for none."""
    target: NDArray[np.int64]
    """Number of the missed object that a mended localisation or category would find; -1 for none."""


def count_mistakes(images: Sequence[tuple[ImageOverlaps, ImageMatches]]) -> Mistakes:
    """Sort all detections that are wrong by KINDS, and mend each kind in turn.

    A detection of a found object, or one that is not the surest of those that could find the same object, is taken
    away where it is mended; others become right. `missed` objects are taken out of the count.
    """
    parts, targets, first = [], [], 0
    is_missed = []
    for image, matched in images:
        found, object_categories = _sort_image(image, matched, first)
        parts.append(found)
        targets.append(object_categories)
        is_missed.append(matched.taken_by[~image.is_crowd] < 0)
        first += len(object_categories)
    whole = _joined(parts)
    categories = np.concatenate([np.zeros(0, np.int64), *targets])
    unfound = np.concatenate([np.zeros(0, np.bool_), *is_missed])
    unfound[whole.target[whole.target >= 0]] = False

    ap50 = _ap(whole, categories)
    kinds: list[Kind] = list(KINDS)
    counts = {kind: int((whole.kind == i).sum()) for i, kind in enumerate(kinds)}
    counts["missed"] = int(unfound.sum())
    mended = {kind: _ap(_mended(whole, i, categories), categories) for i, kind in enumerate(kinds)}
    mended["missed"] = _ap(whole, categories[~unfound])
    return Mistakes(ap50, counts, {kind: max(mended[kind] - ap50, 0.0) for kind in kinds})


def _sort_image(image: ImageOverlaps, matched: ImageMatches, first: int) -> tuple[_Found, NDArray[np.int64]]:
    """The image's detections that count, and its objects' categories; `first` is the number of its first object."""
    real = ~image.is_crowd
    counted = ~matched.ignored[:, 0]
    true = matched.true[counted, 0]
    category, objects = image.categories[counted], image.object_categories[real]
    is_taken = matched.taken_by[real] >= 0
    kind, target = np.full(len(true), -1), np.full(len(true), -1)
    if not len(objects):
        kind[:] = _place("background")
    else:
        iou = image.iou[counted][:, real]
        own = iou * (category[:, None] == objects)
        other = iou * (category[:, None] != objects)
        near, strange = own.argmax(axis=1), other.argmax(axis=1)
        localisation = (own.max(axis=1) >= _BACKGROUND) & (own.max(axis=1) <= _FOREGROUND)
        classification = other.max(axis=1) >= _FOREGROUND
        duplicate = (own * is_taken).max(axis=1) >= _FOREGROUND
        background = iou.max(axis=1) <= _BACKGROUND
        conditions = [true, localisation, classification, duplicate, background]
        names: tuple[Kind, ...] = ("localisation", "classification", "duplicate", "background")
        kind = np.select(conditions, [-1, *map(_place, names)], _place("both"))
        target = np.where(kind == _place("localisation"), near, np.where(kind == _place("classification"), strange, -1))
        target = np.where((target >= 0) & ~is_taken[target], target + first, -1)
    return _Found(image.scores[counted], category, true, kind, target), objects


def _place(kind: Kind) -> int:
    return list(KINDS).index(kind)


def _joined(parts: Sequence[_Found]) -> _Found:
    return _Found(
        score=np.concatenate([np.zeros(0), *(part.score for part in parts)]),
        category=np.concatenate([np.zeros(0, np.int64), *(part.category for part in parts)]),
        true=np.concatenate([np.zeros(0, np.bool_), *(part.true for part in parts)]),
        kind=np.concatenate([np.zeros(0, np.int64), *(part.kind for part in parts)]),
        target=np.concatenate([np.zeros(0, np.int64), *(part.target for part in parts)]),
    )


def _mended(whole: _Found, kind: int, categories: NDArray[np.int64]) -> _Found:
    aimed = np.flatnonzero(whole.target >= 0)
    by_score = aimed[np.lexsort((-whole.score[aimed], whole.target[aimed]))]
    _, firsts = np.unique(whole.target[by_score], return_index=True)  # the surest for each object, of whatever kind
    surest = np.zeros(len(whole.score), np.bool_)
    surest[by_score[firsts]] = True
    affected = whole.kind == kind
    becomes_true = affected & surest
    kept = ~affected | becomes_true
    category = whole.category.copy()
    category[becomes_true] = categories[whole.target[becomes_true]]
    true = whole.true | becomes_true
    return _Found(whole.score[kept], category[kept], true[kept], whole.kind[kept], whole.target[kept])


def _ap(found: _Found, objects: NDArray[np.int64]) -> float:
    """AP50, per cent: the mean over the categories that have an object; NaN where none has."""
    order = np.argsort(-found.score, kind="stable")
    category, true = found.category[order], found.true[order]
    aps = []
    for each in np.unique(objects).tolist():
        hits = np.cumsum(true[category == each])
        precision = hits / np.arange(1, len(hits) + 1)
        envelope = np.maximum.accumulate(precision[::-1])[::-1]
        reached = np.searchsorted(hits / np.count_nonzero(objects == each), RECALLS)
        aps.append(np.append(envelope, 0.0)[reached].mean())
    return 100 * float(np.mean(aps)) if aps else float("nan")
