"""The measurement itself, at a miniature scale."""

import json
from pathlib import Path

import pytest

from eval.bench_coco import main


def test_boxes_masks_and_bootstrap_are_measured_with_what_they_are_compared_to(tmp_path: Path) -> None:
    assert main(["--images", "8", "--repeats", "1", "--threads", "1", "--json", str(tmp_path / "b.json")]) == 0
    record = json.loads((tmp_path / "b.json").read_text())
    rows = {row["name"]: row for row in record["rows"]}
    assert list(rows) == ["COCO figures, boxes", "COCO figures, masks", "bootstrap, boxes", "bootstrap, masks"]
    for row in rows.values():
        assert row["ratio"] == pytest.approx(row["baseline"] / row["ours"])
    scale, difference = rows["COCO figures, masks"]["note"].split("; figures differ by ")
    assert scale == "pycocotools; 8 images, 59 objects, 800 detections"
    assert float(difference.split()[0]) < 1e-12
    assert "1000 draws" in rows["bootstrap, boxes"]["note"]
