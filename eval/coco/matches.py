"""Which detections are right at which IoU: all that AP rests on, in a few bytes a detection.

What is matched is COCO's (pycocotools.COCOeval.evaluateImg, size class "all"), so that resampling images
(eval.coco.bootstrap) needs no second look at boxes or masks.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from eval.coco.overlaps import IOU_THRESHOLDS, ImageOverlaps
from pcd.errors import PCDError

__all__ = ["ImageMatches", "Matches", "collect", "match_image", "read_matches"]

_BITS: Final = (1 << np.arange(len(IOU_THRESHOLDS))).astype(np.uint16)
_FIELDS: Final = (*("images", "categories", "image", "category", "true", "ignored", "object_image", "object_category"),)


@dataclass(frozen=True, slots=True)
class ImageMatches:
    """One image's, in the order of ImageOverlaps."""

    true: NDArray[np.bool_]
    """(D, T): the detection found an object at an IoU."""
    ignored: NDArray[np.bool_]
    """(D, T): it found a crowd, and does not count."""
    taken_by: NDArray[np.int64]
    """(G,) the detection that found an object at the first IoU, 0.5; -1: none, or a crowd."""


@dataclass(frozen=True, slots=True, eq=False)
class Matches:
    """A whole set's detections by category and falling score, D in all, and its O objects, crowds left out."""

    images: NDArray[np.int64]
    """(I,) ids, rising."""
    categories: NDArray[np.int64]
    """(K,) ids, rising."""
    image: NDArray[np.int32]
    """(D,) places among `images`."""
    category: NDArray[np.int32]
    """(D,) places among `categories`, rising."""
    true: NDArray[np.uint16]
    """(D,) a bit for each of IOU_THRESHOLDS, the lowest for 0.5: the detection found an object."""
    ignored: NDArray[np.uint16]
    """(D,) likewise: it found a crowd, and does not count."""
    object_image: NDArray[np.int32]
    """(O,)"""
    object_category: NDArray[np.int32]
    """(O,)"""

    def write(self, path: Path) -> None:
        with path.open("wb") as file:
            np.savez_compressed(file, **{name: getattr(self, name) for name in _FIELDS})


def read_matches(path: Path) -> Matches:
    """Raises PCDError if the file is missing or not one of Matches.write's."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return Matches(**{name: file[name] for name in _FIELDS})
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise PCDError(f"{path} does not hold an evaluation's matches ({error}); evaluate the detector again") from None


def match_image(image: ImageOverlaps) -> ImageMatches:
    """Each detection, best first, takes the object of its category that it covers most and that is still free."""
    detections, objects = image.iou.shape
    true = np.zeros((detections, len(IOU_THRESHOLDS)), np.bool_)
    ignored = np.zeros_like(true)
    taken_by = np.full(objects, -1)
    fits = (image.categories[:, None] == image.object_categories) & (image.iou >= IOU_THRESHOLDS[0])
    free = [[True] * objects for _ in IOU_THRESHOLDS]
    is_crowd = image.is_crowd.tolist()
    for d in np.flatnonzero(fits.any(axis=1)).tolist():
        candidates = [(g, float(image.iou[d, g])) for g in np.flatnonzero(fits[d]).tolist()]
        highest = max(iou for _, iou in candidates)
        for t, threshold in enumerate(_REACHED):
            if highest < threshold:
                break
            best, best_iou = -1, threshold
            for g, iou in candidates:
                if is_crowd[g]:
                    if best >= 0 and not is_crowd[best]:
                        break  # an object comes before any crowd
                elif not free[t][g]:
                    continue
                if iou >= best_iou:  # of equals the last one, as in pycocotools
                    best, best_iou = g, iou
            if best < 0:
                continue
            if is_crowd[best]:
                ignored[d, t] = True
                continue
            true[d, t], free[t][best] = True, False
            if t == 0:
                taken_by[best] = d
    return ImageMatches(true, ignored, taken_by)


_REACHED: Final = [min(threshold, 1 - 1e-10) for threshold in IOU_THRESHOLDS.tolist()]


def collect(coco: dict[str, Any], matched: list[tuple[ImageOverlaps, ImageMatches]]) -> Matches:
    """All images' matches, by category and falling score; of equal scores the earlier image's is first."""

    def joined(parts: list[Any], dtype: Any) -> Any:
        return np.concatenate([np.zeros(0, dtype), *parts]).astype(dtype)

    scores = joined([image.scores for image, _ in matched], np.float64)
    category = joined([image.categories for image, _ in matched], np.int32)
    order = np.lexsort((-scores, category))  # stable
    found = [np.full(len(image.scores), image.image) for image, _ in matched]
    objects = [(image.image, image.object_categories[~image.is_crowd]) for image, _ in matched]
    return Matches(
        images=np.array(sorted(image["id"] for image in coco["images"]), np.int64),
        categories=np.array(sorted(category["id"] for category in coco["categories"]), np.int64),
        image=joined(found, np.int32)[order],
        category=category[order],
        true=joined([match.true @ _BITS for _, match in matched], np.uint16)[order],
        ignored=joined([match.ignored @ _BITS for _, match in matched], np.uint16)[order],
        object_image=joined([np.full(len(own), place) for place, own in objects], np.int32),
        object_category=joined([own for _, own in objects], np.int32),
    )
