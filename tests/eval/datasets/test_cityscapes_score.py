"""Cityscapes' AP: of perfect masks, and what the official scripts say when they are run as they come."""

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from eval.datasets import cityscapes_score
from eval.datasets.cityscapes import CITYSCAPES_CLASSES, read_cityscapes
from eval.datasets.cityscapes_score import score
from pcd.errors import PCDError

Figures = Callable[[list[dict[str, Any]]], dict[str, float | None]]


@pytest.fixture(scope="module")
def val(cityscapes: Path) -> dict[str, Any]:
    return read_cityscapes(cityscapes, "val", 1, lambda *_: None)


@pytest.fixture
def figures(cityscapes: Path, val: dict[str, Any], tmp_path: Path) -> Figures:
    def compute(found: list[dict[str, Any]]) -> dict[str, float | None]:
        (tmp_path / "val.json").write_text(json.dumps(val))
        (tmp_path / "found.json").write_text(json.dumps(found))
        return score(tmp_path / "found.json", tmp_path / "val.json", cityscapes)

    return compute


def perfect(val: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"image_id": a["image_id"], "category_id": a["category_id"], "segmentation": a["segmentation"], "score": 0.9}
        for a in val["annotations"]
        if not a["iscrowd"]
    ]


def displaced(val: dict[str, Any]) -> list[dict[str, Any]]:
    """Each object twice, moved by up to four pixels, and now and then as another class."""
    random, found = np.random.default_rng(0), []
    for a in [a for a in val["annotations"] for _ in range(2)]:
        mask = coco_mask.decode(a["segmentation"])
        moved = np.asfortranarray(np.roll(mask, random.integers(-2, 5, 2), axis=(0, 1)))
        rle = coco_mask.encode(moved)
        category = a["category_id"] if random.random() < 0.8 else int(random.choice(list(CITYSCAPES_CLASSES)))
        segmentation = {"size": rle["size"], "counts": rle["counts"].decode()}
        found.append({
            "image_id": a["image_id"], "category_id": category, "segmentation": segmentation,
            "score": float(random.random()),
        })  # fmt: skip
    return found


def test_perfect_masks_are_an_ap_of_100(figures: Figures, val: dict[str, Any]) -> None:
    got = figures(perfect(val))
    assert (got["segm/AP"], got["segm/AP50"], got["segm/AP-car"]) == (100, 100, 100)


def test_a_class_without_objects_has_no_ap(figures: Figures, val: dict[str, Any]) -> None:
    assert figures(perfect(val))["segm/AP-bus"] is None


def test_nothing_found_is_an_ap_of_0(figures: Figures) -> None:
    got = figures([])
    assert (got["segm/AP"], got["segm/AP50"], got["segm/AP-car"], got["segm/AP-bus"]) == (0, 0, 0, None)


def test_a_mask_on_a_group_of_cars_is_not_wrong(figures: Figures, val: dict[str, Any]) -> None:
    groups = [
        {"image_id": a["image_id"], "category_id": a["category_id"], "segmentation": a["segmentation"], "score": 0.99}
        for a in val["annotations"]
        if a["iscrowd"]
    ]
    assert len(groups) == 2
    assert figures(groups + perfect(val))["segm/AP"] == 100


def test_the_figures_are_those_of_the_official_scripts_run_as_they_come(
    figures: Figures, val: dict[str, Any], cityscapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    official = importlib.import_module("cityscapesscripts.evaluation.evalInstanceLevelSemanticLabeling")
    found, theirs = displaced(val), tmp_path / "theirs"
    theirs.mkdir()
    listings, truths = [], []
    for image in val["images"]:
        stem = Path(image["file_name"]).name.removesuffix("_leftImg8bit.png")
        lines = []
        for number, record in enumerate(r for r in found if r["image_id"] == image["id"]):
            Image.fromarray(coco_mask.decode(record["segmentation"]) * 255).save(theirs / f"{stem}_{number}.png")
            lines.append(f"{stem}_{number}.png {record['category_id']} {record['score']}\n")
        (theirs / f"{stem}_pred.txt").write_text("".join(lines))
        listings.append(str(theirs / f"{stem}_pred.txt"))
        truths.append(str(cityscapes / image["truth"]))
    monkeypatch.setattr(official, "writeDict2JSON", lambda *_: None)  # ends in a TypeError of numpy 2.4's integers
    monkeypatch.setattr(np, "in1d", np.isin, raising=False)
    for name, value in (("predictionPath", str(theirs)), ("gtInstancesFile", str(tmp_path / "gt.json"))):
        monkeypatch.setattr(official.args, name, value)
    monkeypatch.setattr(official.args, "JSONOutput", False)
    expected = official.evaluateImgLists(listings, truths, official.args)["averages"]

    got = figures(found)
    assert 5 < expected["allAp"] * 100 < 95
    assert got["segm/AP"] == pytest.approx(100 * expected["allAp"], abs=1e-9)
    assert got["segm/AP50"] == pytest.approx(100 * expected["allAp50%"], abs=1e-9)
    assert got["segm/AP-car"] == pytest.approx(100 * expected["classes"]["car"]["ap"], abs=1e-9)


def test_scripts_that_are_not_installed_are_named(figures: Figures, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cityscapesscripts.evaluation", None)
    with pytest.raises(PCDError, match=r"pip install 'pcd-benchmark\[cityscapes\]'"):
        figures([])


def test_a_set_that_moved_is_named(val: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "val.json").write_text(json.dumps(val))
    (tmp_path / "found.json").write_text("[]")
    with pytest.raises(PCDError, match="does not exist; the set's folder has moved"):
        cityscapes_score.score(tmp_path / "found.json", tmp_path / "val.json", tmp_path)
