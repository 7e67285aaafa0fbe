"""Each kind of mistake, one by one, and what mending it gives."""

from typing import Any

import pytest

from eval.coco.matches import match_image
from eval.coco.mistakes import KINDS, Mistakes, count_mistakes
from eval.coco.overlaps import overlaps
from tests.eval.coco.reference import pycocotools_eval

Record = dict[str, Any]

OBJECT = [0, 0, 10, 10]


def box(bbox: list[float], score: float = 0.5, category: int = 1, image: int = 1) -> Record:
    return {"image_id": image, "category_id": category, "bbox": bbox, "score": score}


def mistakes(objects: list[Record], detections: list[Record]) -> Mistakes:
    coco = {
        "images": [{"id": i, "width": 100, "height": 100} for i in (1, 2)],
        "categories": [{"id": i, "name": str(i)} for i in (1, 2)],
        "annotations": [{"id": i, "iscrowd": 0, "area": 100.0, **o} for i, o in enumerate(objects, start=1)],
    }
    return count_mistakes([(image, match_image(image)) for image in overlaps(coco, detections, "bbox")])


@pytest.mark.parametrize(
    ("kind", "detection"),
    [
        ("localisation", box([0, 0, 10, 3])),
        ("classification", box(OBJECT, category=2)),
        ("both", box([0, 0, 10, 3], category=2)),
        ("background", box([50, 50, 10, 10])),
        ("background", box([0, 0, 10, 0.9])),  # an overlap of 0.09
        ("background", box(OBJECT, image=2)),
    ],
)
def test_a_wrong_detection_is_of_its_kind(kind: str, detection: Record) -> None:
    found = mistakes([box(OBJECT)], [detection])
    expected = {kind: 1} | ({"missed": 1} if kind in ("both", "background") else {})
    assert {kind: count for kind, count in found.counts.items() if count} == expected


def test_the_less_sure_of_two_detections_of_an_object_is_a_duplicate() -> None:
    found = mistakes([box(OBJECT)], [box(OBJECT, 0.9), box([0, 0, 10, 9], 0.8)])
    assert {kind: count for kind, count in found.counts.items() if count} == {"duplicate": 1}
    assert found.ap50 == 100
    assert set(found.costs.values()) == {0.0}


def test_a_crowd_is_no_mistake_of_a_detection_and_is_not_missed() -> None:
    found = mistakes([box(OBJECT), box([40, 40, 20, 20]) | {"iscrowd": 1}], [box([45, 45, 5, 5])])
    assert {kind: count for kind, count in found.counts.items() if count} == {"missed": 1}


@pytest.mark.parametrize("detection", [box([0, 0, 10, 3]), box(OBJECT, category=2)])
def test_a_mended_localisation_or_category_finds_the_object(detection: Record) -> None:
    found = mistakes([box(OBJECT)], [detection])
    (cost,) = (cost for cost in found.costs.values() if cost)
    assert (found.ap50, cost) == (0, 100)


def test_only_the_surest_detection_finds_an_object_when_it_is_mended() -> None:
    found = mistakes([box(OBJECT)], [box([0, 0, 10, 3], 0.9), box(OBJECT, 0.8, category=2)])
    assert found.costs["localisation"] == 100
    assert found.costs["classification"] == 0  # taken away, since the other one would find it


def test_wrong_detections_above_right_ones_cost_precision() -> None:
    objects = [box(OBJECT)]
    found = mistakes(objects, [box([50, 50, 10, 10], 0.9), box(OBJECT, 0.8)])
    assert (found.ap50, found.costs["background"]) == (50, 50)


def test_a_missed_object_costs_recall() -> None:
    found = mistakes([box(OBJECT), box([50, 50, 10, 10])], [box(OBJECT)])
    assert found.counts["missed"] == 1
    assert found.ap50 == pytest.approx(100 * 51 / 101)
    assert found.costs["missed"] == pytest.approx(100 - found.ap50)


def test_nothing_detected_misses_everything() -> None:
    found = mistakes([box(OBJECT), box(OBJECT, category=2)], [])
    assert found.ap50 == 0
    assert found.counts == dict.fromkeys(KINDS, 0) | {"missed": 2}


def test_of_many_detections_each_wrong_one_has_one_kind_and_ap50_is_cocos(coco: Record, distinct: list[Record]) -> None:
    images = [(image, match_image(image)) for image in overlaps(coco, distinct, "bbox")]
    found = count_mistakes(images)
    assert found.ap50 == pytest.approx(100 * pycocotools_eval(coco, distinct, "bbox").stats[1])
    wrong = sum(int((~matched.true[:, 0] & ~matched.ignored[:, 0]).sum()) for _, matched in images)
    assert sum(found.counts.values()) - found.counts["missed"] == wrong
    assert all(found.counts.values())
    assert all(found.costs.values())


def test_the_counts_are_those_of_tide(coco: Record, distinct: list[Record]) -> None:
    """tidecv 1.0.1 on the same boxes and detections, with the crowds left out, which it counts otherwise."""
    alone = coco | {"annotations": [a for a in coco["annotations"] if not a["iscrowd"]]}
    found = count_mistakes([(image, match_image(image)) for image in overlaps(alone, distinct, "bbox")])
    assert list(found.counts.values()) == [42, 43, 129, 80, 726, 33]
    assert list(found.counts) == ["classification", "localisation", "both", "duplicate", "background", "missed"]
