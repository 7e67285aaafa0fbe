"""How far AP may be chance: the bootstrap over images (Efron and Tibshirani 1993).

An AP is a figure of the images that it was measured on. Drawing as many images with replacement, again and again,
shows how far it would have moved on others. Two detectors are compared on the same draws: what makes an image hard for
both then cancels. What is not in an interval is the chance of training: that is what seeds are for.

A draw holds about 63 % of the images, some repeatedly, and AP is the higher, the fewer different objects a category
has. So the draws tell by how much AP varies, and not where it lies: an interval is that of their percentiles, moved by
their mean's difference to the AP as it is.

A draw weighs an image by how often it was drawn, which gives AP from the matches alone; nothing is evaluated again.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from eval.coco.matches import Matches
from eval.coco.overlaps import IOU_THRESHOLDS, RECALLS
from eval.confidence import CONFIDENCE
from pcd.errors import PCDError

__all__ = ["Floats", "Interval", "draw_weights", "interval", "resample", "weighted_ap"]

_AT_ONCE: Final = 100
"""Draws of which one category is computed together: a few MB, which a processor's cache holds."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Interval:
    """AP or a difference of two, per cent."""

    value: float
    """On the images as they are."""
    low: float
    high: float


def interval(value: float, resampled: Floats) -> Interval:
    """The middle CONFIDENCE of what was drawn, about `value` in place of the draws' mean.

    Draws without any object are left out.
    """
    drawn = resampled[np.isfinite(resampled)]
    if not len(drawn):
        return Interval(value, value, value)
    tail = (1 - CONFIDENCE) / 2
    low, high = value + np.quantile(drawn, (tail, 1 - tail)) - drawn.mean()
    return Interval(value, float(low), float(high))


def draw_weights(images: int, resamples: int, seed: int) -> NDArray[np.float64]:
    """(I, R) how often each image is drawn; the columns sum to I. Equal for equal arguments, on every machine."""
    return np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), resamples).T.astype(np.float64)


def resample(
    runs: Sequence[Matches], resamples: int = 1000, seed: int = 0, threads: int = 1,
    behind_each: Callable[[], object] | None = None,
) -> tuple[float, Floats]:  # fmt: skip
    """AP, per cent, averaged over `runs`: on the images as they are, and (R,) on each draw of them.

    Args:
        runs: detectors that were evaluated on the same images, such as one arm's seeds. Two calls on the same images
            with the same seed have the same draws, so that their difference is the paired one.
        behind_each: called when a run is done.

    Raises:
        PCDError: the runs are of different sets.
    """
    first = runs[0]
    if any(not np.array_equal(first.images, run.images) for run in runs):
        raise PCDError("detectors that were evaluated on different images cannot be resampled together")
    images = len(first.images)
    as_they_are = [_mean(weighted_ap(run, np.ones((images, 1))))[0] for run in runs]
    weights = draw_weights(images, resamples, seed)
    drawn = []
    for run in runs:
        drawn.append(_mean(weighted_ap(run, weights, threads)))
        if behind_each:
            behind_each()
    return float(np.mean(as_they_are)), np.mean(drawn, axis=0)


def _mean(ap: Floats) -> Floats:
    """(R,) per cent, from (R, T, K): over IoUs and the categories that have objects; NaN where none has."""
    exists = ~np.isnan(ap)
    total = np.where(exists, ap, 0).sum(axis=(1, 2))
    with np.errstate(invalid="ignore"):
        return np.asarray(100 * total / exists.sum(axis=(1, 2)))


def weighted_ap(matches: Matches, weights: Floats, threads: int = 1) -> Floats:
    """COCO's AP of every draw, IoU and category, as (R, T, K) between 0 and 1; NaN for a category without objects.

    It is that of pycocotools on a set that has each image as often as `weights` (I, R) says. (Detections of one image
    and category with equal scores may stand in another order there; COCO does not say in which.)
    """
    draws = weights.shape[1]
    ap = np.full((draws, len(IOU_THRESHOLDS), len(matches.categories)), np.nan)
    starts = np.searchsorted(matches.category, np.arange(len(matches.categories) + 1))

    def fill(category: int) -> None:
        of = slice(starts[category], starts[category + 1])
        curves = _Curves(matches, of)
        objects = matches.object_image[matches.object_category == category]
        for begin in range(0, draws, _AT_ONCE):
            columns = slice(begin, begin + _AT_ONCE)
            some = np.ascontiguousarray(weights[:, columns])
            there = some[objects].sum(axis=0)  # (B,)
            ap[columns, :, category] = curves.ap(some, there)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(fill, range(len(matches.categories))))
    return ap


class _Curves:
    """One category's precision and recall at the detections where they can rise: those that are right."""

    def __init__(self, matches: Matches, of: slice) -> None:
        image, true, ignored = matches.image[of], matches.true[of], matches.ignored[of]
        images = len(matches.images)
        rises = np.flatnonzero(true)
        self.image = image[rises]
        self.up_to = _counts(np.arange(len(image)), image, rises, images)  # detections behind the one before it
        self.at: list[tuple[NDArray[np.int64], sparse.csr_array | None]] = []
        for bit in range(len(IOU_THRESHOLDS)):
            left_out = np.flatnonzero(ignored >> bit & 1)
            crowded = _counts(left_out, image[left_out], rises, images) if len(left_out) else None
            self.at.append((np.flatnonzero(true[rises] >> bit & 1), crowded))

    def ap(self, weights: Floats, objects: Floats) -> Floats:
        """(B, T) from weights (I, B) and the weighted number of objects (B,)."""
        seen = np.cumsum(self.up_to @ weights, axis=0)  # (rises, B) detections up to each rise
        drawn = weights[self.image]
        found = np.zeros((weights.shape[1], len(IOU_THRESHOLDS)))
        for t, (rows, crowded) in enumerate(self.at):
            if not len(rows):
                continue
            counted = seen[rows] if crowded is None else (seen - np.cumsum(crowded @ weights, axis=0))[rows]
            true = np.cumsum(drawn[rows], axis=0)
            precision = true / (counted + np.spacing(1))  # where nothing was drawn yet: 0
            envelope = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
            with np.errstate(invalid="ignore"):
                recall = true / objects
            read = np.searchsorted(RECALLS, recall, side="right")  # how many of the recalls were reached
            found[:, t] = (envelope * np.diff(read, axis=0, prepend=0)).sum(axis=0) / len(RECALLS)
        found[objects == 0] = np.nan
        return found


def _counts(
    places: NDArray[np.int64], image: NDArray[np.int32], rises: NDArray[np.int64], images: int
) -> sparse.csr_array:
    """(rises, I): an image's detections in front of each rise, itself included, and behind the rise before it."""
    rows = np.searchsorted(rises, places)
    kept = rows < len(rises)  # behind the last rise nothing changes
    ones = np.ones(int(kept.sum()))
    return sparse.csr_array((ones, (rows[kept], image[kept])), shape=(len(rises), images))
