"""What cannot be evaluated is named, in one line."""

import math
from pathlib import Path
from typing import Any

import pytest

from eval.coco.results import TASKS, check_results
from pcd.errors import PCDError

GOOD = {"image_id": 1, "category_id": 3, "score": 0.5, "bbox": [0, 0, 5, 5], "segmentation": {}}
PLACE = Path("/a/folder/predictions.json")


def test_faultless_records_are_taken(own_coco: dict[str, Any]) -> None:
    check_results([GOOD, GOOD | {"image_id": 2}], own_coco, TASKS, PLACE)


@pytest.mark.parametrize(
    ("records", "told"),
    [
        ([GOOD | {"image_id": 9}], "1 detections of another set (1 of image 9, which"),
        ([GOOD, *[GOOD | {"category_id": 4}] * 2], "2 detections of another set (2 of category 4, which"),
        ([GOOD, GOOD | {"score": math.nan}], "record 1 has a score or box that is no number"),
        ([GOOD | {"bbox": [0, 0, 5, math.inf]}], "record 0 has a score or box that is no number"),
        ([{k: v for k, v in GOOD.items() if k != "segmentation"}], "record 0 has no segmentation"),
        ([7], "record 0 has no image_id and no category_id"),
    ],
)
def test_a_fault_is_told_in_one_line(records: list[Any], told: str, own_coco: dict[str, Any]) -> None:
    with pytest.raises(PCDError) as caught:
        check_results(records, own_coco, TASKS, PLACE)
    message = str(caught.value)
    assert message.startswith(str(PLACE))
    assert told in message
    assert "\n" not in message


def test_a_record_of_boxes_alone_is_enough_for_boxes(own_coco: dict[str, Any]) -> None:
    check_results([{k: v for k, v in GOOD.items() if k != "segmentation"}], own_coco, ["bbox"], PLACE)
