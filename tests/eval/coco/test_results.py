"""What cannot be evaluated is named, in one line."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from eval.coco.results import read_coco, read_results
from pcd.errors import PCDError

GOOD = {"image_id": 1, "category_id": 3, "score": 0.5, "bbox": [0, 0, 5, 5], "segmentation": {}}


def test_a_faultless_file_is_read_in_its_order(tmp_path: Path, own_coco: dict[str, Any]) -> None:
    records = [GOOD, GOOD | {"image_id": 2}]
    (tmp_path / "p.json").write_text(json.dumps(records))
    assert read_results(tmp_path / "p.json", own_coco) == records


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("[", "cannot be read as JSON"),
        ("{}", "is no list of COCO result records"),
        (json.dumps([GOOD | {"image_id": 9}]), "1 detections of another set (1 of image 9, which"),
        (json.dumps([GOOD, *[GOOD | {"category_id": 4}] * 2]), "2 detections of another set (2 of category 4, which"),
        (json.dumps([GOOD, GOOD | {"score": math.nan}]), "record 1 has a score or box that is no number"),
        (json.dumps([GOOD | {"bbox": [0, 0, 5, math.inf]}]), "record 0 has a score or box that is no number"),
        (json.dumps([{k: v for k, v in GOOD.items() if k != "segmentation"}]), "record 0 has no segmentation"),
        (json.dumps([7]), "record 0 has no image_id and no category_id"),
    ],
)
def test_a_fault_is_told_in_one_line(content: str, told: str, tmp_path: Path, own_coco: dict[str, Any]) -> None:
    (tmp_path / "p.json").write_text(content)
    with pytest.raises(PCDError) as caught:
        read_results(tmp_path / "p.json", own_coco)
    message = str(caught.value)
    assert message.startswith(str(tmp_path / "p.json"))
    assert told in message
    assert "\n" not in message


def test_a_record_of_boxes_alone_is_enough_for_boxes(tmp_path: Path, own_coco: dict[str, Any]) -> None:
    (tmp_path / "p.json").write_text(json.dumps([{k: v for k, v in GOOD.items() if k != "segmentation"}]))
    assert len(read_results(tmp_path / "p.json", own_coco, ["bbox"])) == 1


@pytest.mark.parametrize(
    ("content", "told"), [("nonsense", "cannot be read"), ('{"images": []}', "has no annotations")]
)
def test_annotations_that_are_none_are_told(content: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(PCDError, match=told):
        read_coco(tmp_path / "a.json")
