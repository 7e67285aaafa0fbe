"""VOC's AP: hand-made cases, and figure by figure what Detectron2's evaluator says of the same files."""

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.datasets.voc import VOC_CLASSES, read_voc
from eval.datasets.voc_score import average_precision, score
from tests.eval.datasets.conftest import VocObject, write_voc

CLASSES = ("dog", "person", "car")


def detection(image: int, name: str, box: tuple[float, float, float, float], confidence: float) -> dict[str, Any]:
    """A COCO result record of a box as VOC counts it."""
    left, top, right, bottom = box
    plain = [left - 1, top - 1, right - left + 1, bottom - top + 1]
    return {"image_id": image, "category_id": VOC_CLASSES.index(name) + 1, "bbox": plain, "score": confidence}


def figures(folder: Path, found: list[dict[str, Any]]) -> dict[str, float | None]:
    coco, _ = read_voc(folder, ("2007_test",), 1, lambda *_: None)
    (folder / "val.json").write_text(json.dumps(coco))
    (folder / "predictions.json").write_text(json.dumps(found))
    return score(folder / "predictions.json", folder / "val.json")


def test_every_object_found_is_an_ap_of_100(voc: Path) -> None:
    found = [
        detection(1, "dog", (11, 11, 30, 30), 0.9), detection(2, "dog", (1, 1, 20, 20), 0.8),
        detection(1, "person", (1, 1, 20, 40), 0.7),
    ]  # fmt: skip
    got = figures(voc, found)
    assert got["bbox/AP"] == pytest.approx(100)
    assert got["bbox/AP-dog"] == got["bbox/AP-person"] == pytest.approx(100)


def test_a_class_without_objects_has_no_ap(voc: Path) -> None:
    assert figures(voc, [detection(1, "cat", (1, 1, 9, 9), 0.9)])["bbox/AP-cat"] is None


def test_nothing_found_is_an_ap_of_0(voc: Path) -> None:
    got = figures(voc, [])
    assert (got["bbox/AP"], got["bbox/AP50"], got["bbox/AP-dog"], got["bbox/AP-cat"]) == (0, 0, 0, None)


def test_a_difficult_object_counts_neither_for_nor_against(voc: Path) -> None:
    both = [detection(1, "dog", (11, 11, 30, 30), 0.8), detection(2, "dog", (1, 1, 20, 20), 0.7)]
    on_difficult = detection(1, "dog", (31, 1, 50, 20), 0.9)
    assert figures(voc, [on_difficult, *both])["bbox/AP-dog"] == pytest.approx(100)
    assert figures(voc, [on_difficult])["bbox/AP-dog"] == 0


def test_a_second_detection_of_an_object_is_wrong(voc: Path) -> None:
    twice = [
        detection(1, "dog", (11, 11, 30, 30), 0.9), detection(1, "dog", (11, 11, 30, 30), 0.8),
        detection(2, "dog", (1, 1, 20, 20), 0.7),
    ]  # fmt: skip
    # Precision is 1 up to a recall of 0.5, 2/3 up to 1: six of eleven points, and five.
    assert figures(voc, twice)["bbox/AP-dog"] == pytest.approx(100 * (6 + 5 * 2 / 3) / 11)


def test_the_area_below_the_curve_is_summed_where_recall_rises() -> None:
    right, wrong = np.array([1, 1, 2]), np.array([0, 1, 1])
    assert average_precision(right, wrong, 4, at_eleven=False) == pytest.approx(0.25 * 1 + 0.25 * 2 / 3)


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve images with random objects of three classes; VOC 2012's val is the same as 2007's test."""
    random, folder = np.random.default_rng(0), tmp_path_factory.mktemp("crowded") / "VOCdevkit"
    images: dict[str, list[VocObject]] = {}
    for image in range(12):
        objects: list[VocObject] = []
        for _ in range(random.integers(1, 6)):
            left, top = random.integers(1, 30), random.integers(1, 20)
            box = (int(left), int(top), int(left + random.integers(4, 20)), int(top + random.integers(4, 20)))
            objects.append((CLASSES[random.integers(3)], box, int(random.random() < 0.2)))
        images[f"{image:06d}"] = objects
    write_voc(folder, 2007, "test", images)
    write_voc(folder, 2012, "val", images)
    return folder


def detections(folder: Path, year: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The set, and detections near its objects, doubled, displaced and made up; no two scores alike."""
    random = np.random.default_rng(1)
    coco, _ = read_voc(folder, ("2007_test",) if year == 2007 else ("2012_val",), 1, lambda *_: None)
    ids, found = [VOC_CLASSES.index(name) + 1 for name in CLASSES], []
    for annotation in coco["annotations"] * 3:
        box = (np.array(annotation["bbox"]) + random.normal(0, 1.5, 4)).clip(0.5).astype(np.float32).tolist()
        category = annotation["category_id"] if random.random() < 0.8 else int(random.choice(ids))
        found.append({"image_id": annotation["image_id"], "category_id": category, "bbox": box})
    for record, rank in zip(found, random.permutation(len(found)), strict=True):
        record["score"] = (int(rank) + 1) / 1000
    return coco, found


@pytest.mark.parametrize("year", [2007, 2012])
def test_the_figures_are_those_of_detectron2(crowded: Path, tmp_path: Path, year: int) -> None:
    importlib.import_module("eval.detectron")  # mends what Detectron2 misses in Pillow
    import torch
    from detectron2.data import MetadataCatalog
    from detectron2.evaluation import PascalVOCDetectionEvaluator
    from detectron2.structures import Boxes, Instances

    coco, found = detections(crowded, year)
    (tmp_path / "val.json").write_text(json.dumps(coco))
    (tmp_path / "found.json").write_text(json.dumps(found))
    ours = score(tmp_path / "found.json", tmp_path / "val.json")

    name = f"voc-test-{year}"
    split = "test" if year == 2007 else "val"
    MetadataCatalog.get(name).set(
        dirname=str(crowded / f"VOC{year}"), split=split, year=year, thing_classes=list(CLASSES)
    )
    theirs = PascalVOCDetectionEvaluator(name)
    theirs.reset()
    numbers = [VOC_CLASSES.index(one) + 1 for one in CLASSES]
    for image in coco["images"]:
        mine = [record for record in found if record["image_id"] == image["id"]]
        boxes = torch.tensor([record["bbox"] for record in mine]).reshape(-1, 4)
        instances = Instances((40, 50), pred_boxes=Boxes(torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)))
        instances.scores = torch.tensor([record["score"] for record in mine])
        instances.pred_classes = torch.tensor([numbers.index(record["category_id"]) for record in mine])
        theirs.process([{"image_id": Path(image["file_name"]).stem}], [{"instances": instances}])
    expected = theirs.evaluate()["bbox"]
    assert expected["AP50"] > 20
    assert {name: ours[f"bbox/{name}"] for name in expected} == pytest.approx(dict(expected), abs=1e-9)
