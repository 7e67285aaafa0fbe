"""What the tests of the COCO evaluation share: random objects and detections, with crowds, all sizes, and ties."""

from typing import Any

import pytest

from eval.coco.matches import Matches, collect, match_image
from eval.coco.overlaps import ImageOverlaps, overlaps
from eval.coco.synthetic import make_detections, make_objects

Record = dict[str, Any]


@pytest.fixture(scope="session")
def coco() -> Record:
    """40 images, 260 objects of which some are crowds, 6 categories, of which the last has no object."""
    coco = make_objects(40, 260, 5, seed=0, crowds=0.08)
    coco["categories"].append({"id": 6, "name": "unseen"})
    return coco


@pytest.fixture(scope="session")
def ties(coco: Record) -> list[Record]:
    """Detections of which many have equal scores."""
    return make_detections(coco, 30, seed=1, decimals=1)


@pytest.fixture(scope="session")
def distinct(coco: Record) -> list[Record]:
    """Detections of which no two have equal scores."""
    return make_detections(coco, 30, seed=2)


def matches_of(coco: Record, detections: list[Record], task: str = "bbox") -> Matches:
    images: list[ImageOverlaps] = list(overlaps(coco, detections, task))
    return collect(coco, [(image, match_image(image)) for image in images])
