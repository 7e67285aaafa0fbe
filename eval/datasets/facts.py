"""What a set looks like, and which sizes and anchors of a detector fit it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

__all__ = ["Quantiles", "SplitFacts", "fit_detector", "split_facts"]

Quantiles = tuple[float, float, float]
"""Below them lie 5, 50 and 95 per cent."""

_AT: Final = (5, 50, 95)
_LARGEST_ENLARGEMENT: Final = 2.0
_MULTIPLE: Final = 32
"""Pixels that a detector's input is padded to: its deepest stride."""


@dataclass(frozen=True, slots=True)
class SplitFacts:
    images: int
    objects: int
    """Without crowds."""
    crowds: int
    without_objects: int
    """Images that training leaves out."""
    shorter: Quantiles
    """Shorter side of an image, pixels."""
    longer: Quantiles
    sizes: Quantiles
    """Square root of a box's area, pixels."""
    by_category: dict[str, int]
    """Objects of each, in the order of the ids."""


def split_facts(coco: Mapping[str, Any]) -> SplitFacts:
    """Of a COCO record without faults and with at least one object that is not a crowd."""
    objects = [a for a in coco["annotations"] if not a["iscrowd"]]
    shown = {a["image_id"] for a in objects}
    counts = Counter(a["category_id"] for a in objects)
    return SplitFacts(
        images=len(coco["images"]),
        objects=len(objects),
        crowds=len(coco["annotations"]) - len(objects),
        without_objects=sum(image["id"] not in shown for image in coco["images"]),
        shorter=_quantiles([min(image["width"], image["height"]) for image in coco["images"]]),
        longer=_quantiles([max(image["width"], image["height"]) for image in coco["images"]]),
        sizes=_quantiles([(a["bbox"][2] * a["bbox"][3]) ** 0.5 for a in objects]),
        by_category={c["name"]: counts[c["id"]] for c in sorted(coco["categories"], key=lambda c: int(c["id"]))},
    )


def fit_detector(coco: Mapping[str, Any], protocol: Mapping[str, Any]) -> dict[str, Any]:
    """What of train_sizes, test_size, max_size and anchor_sizes does not fit the training set, and what does.

    - Images are enlarged to twice their shorter side at most (its median): beyond that a detector computes on pixels
      that nobody took. All sizes shrink by one factor, to multiples of 32.
    - Anchors stay where half the smallest to twice the largest cover nine objects in ten as the detector sees them.
      Else the smallest is twice the size that 5 % of the objects lie below, and each is twice the one before, or more
      where the largest would not reach the upper 5 %.

    Both rules are ours; COCO itself keeps the model zoo's sizes and anchors by them.

    Args:
        coco: as of `split_facts`.
        protocol: a detector's settings as plain data.
    """
    fit = _sizes(coco, protocol)
    anchors = _anchors(coco, {**protocol, **fit})
    return fit if anchors == list(protocol["anchor_sizes"]) else {**fit, "anchor_sizes": anchors}


def _sizes(coco: Mapping[str, Any], protocol: Mapping[str, Any]) -> dict[str, Any]:
    shorter = float(np.median([min(image["width"], image["height"]) for image in coco["images"]]))
    share = _LARGEST_ENLARGEMENT * shorter / protocol["test_size"]
    if share >= 1:
        return {}
    return {
        "train_sizes": sorted({_rounded(size * share) for size in protocol["train_sizes"]}),
        "test_size": _rounded(protocol["test_size"] * share),
        "max_size": _rounded(protocol["max_size"] * share),
    }


def _rounded(pixels: float) -> int:
    return max(_MULTIPLE, _MULTIPLE * round(pixels / _MULTIPLE))


def _anchors(coco: Mapping[str, Any], protocol: Mapping[str, Any]) -> list[int]:
    now: list[int] = list(protocol["anchor_sizes"])
    factors = {
        image["id"]: min(
            protocol["test_size"] / min(image["width"], image["height"]),
            protocol["max_size"] / max(image["width"], image["height"]),
        )
        for image in coco["images"]
    }
    seen = [
        factors[a["image_id"]] * (a["bbox"][2] * a["bbox"][3]) ** 0.5 for a in coco["annotations"] if not a["iscrowd"]
    ]
    small, _, large = _quantiles(seen)
    if now[0] / 2 <= small and large <= 2 * now[-1]:
        return now
    first = max(4.0, 2 * small) if now[0] / 2 > small else float(now[0])
    steps = len(now) - 1
    ratio = max(2.0, (large / 2 / first) ** (1 / steps)) if steps else 1.0
    return [round(first * ratio**step) for step in range(len(now))]


def _quantiles(values: Sequence[float]) -> Quantiles:
    low, middle, high = np.percentile(values, _AT).tolist()
    return low, middle, high
