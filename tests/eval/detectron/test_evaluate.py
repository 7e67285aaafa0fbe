"""AP figures of detectors whose worth is known beforehand."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.evaluation import COCOEvaluator, inference_on_dataset
from detectron2.structures import Boxes, Instances
from pycocotools import mask as coco_mask
from torch import nn

from eval.data import Split
from eval.detectron.data import evaluation_loader, register_split
from eval.detectron.evaluate import evaluate_detector
from eval.shapes import CLASS_NAMES
from eval.table import METRICS
from pcd.errors import PCDError
from pcd.settings import StageRuntime
from pcd.stage import Metrics, Spec, Stopped


class Oracle(nn.Module):
    """Detects what is annotated."""

    def __init__(self, name: str, *, masks: bool = True, sees: bool = True, score: float = 1.0) -> None:
        super().__init__()
        self._masks, self._sees, self._score = masks, sees, score
        self._records = {record["image_id"]: record for record in DatasetCatalog.get(name)}

    def forward(self, batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{"instances": self._detect(image["image_id"])} for image in batch]

    def _detect(self, image_id: int) -> Instances:
        record = self._records[image_id]
        annotations = [a for a in record["annotations"] if not a["iscrowd"] and self._sees]
        size = (record["height"], record["width"])
        boxes = [[x, y, x + w, y + h] for x, y, w, h in (a["bbox"] for a in annotations)]
        masks = [torch.from_numpy(coco_mask.decode(a["segmentation"])).bool() for a in annotations]
        found = Instances(
            size,
            pred_boxes=Boxes(torch.tensor(boxes).reshape(-1, 4)),
            scores=torch.full([len(annotations)], self._score),
            pred_classes=torch.tensor([a["category_id"] for a in annotations], dtype=torch.int64),
        )
        if self._masks:
            found.pred_masks = torch.stack(masks) if masks else torch.zeros(0, *size, dtype=torch.bool)
        return found


def spec_into(out: Path) -> Spec:
    runtime = StageRuntime(workers=0, threads=1).model_dump()
    return Spec("test", "test", {}, {}, out, runtime, Metrics(out / "metrics.jsonl"))


@pytest.fixture(scope="module")
def perfect(
    new_config: Callable[..., Any], val_name: str, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, float | None]:
    return evaluate_detector(new_config(), Oracle(val_name), val_name, spec_into(tmp_path_factory.mktemp("oracle")))


@pytest.fixture(scope="module")
def nothing_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("nothing")


@pytest.fixture(scope="module")
def nothing(
    new_config: Callable[..., Any], new_detector: Callable[..., Any], val_name: str, nothing_folder: Path
) -> dict[str, float | None]:
    """The figures of a detector that reports nothing."""
    cfg = new_config()
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 1.1
    return evaluate_detector(cfg, new_detector(cfg), val_name, spec_into(nothing_folder))


def test_detections_equal_to_the_annotations_score_a_hundred(perfect: dict[str, float | None]) -> None:
    assert [perfect[name] for name in ("bbox/AP", "bbox/AP50", "segm/AP", "segm/AP75")] == pytest.approx([100] * 4)


def test_there_is_a_figure_for_every_column_of_the_table(perfect: dict[str, float | None]) -> None:
    assert perfect.keys() >= set(METRICS)


def test_recall_is_told_too(perfect: dict[str, float | None]) -> None:
    # An image has up to three objects, of which one detection finds one.
    assert [perfect[name] for name in ("bbox/AR10", "bbox/AR100", "segm/AR100")] == pytest.approx([100] * 3)
    assert 0 < (perfect["bbox/AR1"] or 0) < 100


def test_there_is_a_figure_for_every_class(perfect: dict[str, float | None]) -> None:
    assert {f"{task}/AP-{name}" for task in ("bbox", "segm") for name in CLASS_NAMES} <= perfect.keys()


def test_a_size_class_without_objects_has_no_figure(perfect: dict[str, float | None]) -> None:
    assert (perfect["bbox/APl"], perfect["segm/APl"]) == (None, None)  # an image has 64 x 64 pixels


def test_a_detector_that_finds_nothing_scores_zero(nothing: dict[str, float | None]) -> None:
    assert [nothing[name] for name in ("bbox/AP", "bbox/AP50", "segm/AP", "segm/APs")] == [0.0] * 4


def test_a_size_class_without_objects_has_no_figure_when_nothing_is_found(nothing: dict[str, float | None]) -> None:
    assert (nothing["bbox/APl"], nothing["segm/APl"]) == (None, None)


def test_a_detector_that_finds_nothing_leaves_an_empty_list(
    nothing: dict[str, float | None], nothing_folder: Path
) -> None:
    assert json.loads((nothing_folder / "predictions.json").read_text()) == []


def test_the_predictions_and_what_comparisons_rest_on_are_left(
    nothing: dict[str, float | None], nothing_folder: Path
) -> None:
    left = {"predictions.json", "matches_bbox.npz", "matches_segm.npz", "mistakes.json"}
    assert {path.name for path in nothing_folder.iterdir()} == left | {"activity.json"}


def test_the_progress_of_the_evaluation_is_told(
    new_config: Callable[..., Any], val_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, int, int]] = []
    monkeypatch.setattr(Spec, "activity", lambda spec, *activity: told.append(activity))
    evaluate_detector(new_config(), Oracle(val_name), val_name, spec_into(tmp_path))
    assert told == [*(("evaluation", done, 8) for done in range(8)), ("AP", 0, 1)]


def test_an_evaluation_that_is_asked_to_stop_stops_at_once(
    new_config: Callable[..., Any], val_name: str, tmp_path: Path
) -> None:
    spec = spec_into(tmp_path)
    spec.request_stop()
    with pytest.raises(Stopped):
        evaluate_detector(new_config(), Oracle(val_name), val_name, spec)


@pytest.fixture(scope="module")
def fresh(
    new_config: Callable[..., Any],
    new_detector: Callable[..., Any],
    val_name: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[dict[str, float | None], Path]:
    """The figures of a detector that learnt nothing, and its folder."""
    cfg, folder = new_config(), tmp_path_factory.mktemp("fresh")
    return evaluate_detector(cfg, new_detector(cfg), val_name, spec_into(folder)), folder


def test_a_fresh_detector_leaves_detections_in_the_annotations_categories(
    fresh: tuple[dict[str, float | None], Path],
) -> None:
    found = json.loads((fresh[1] / "predictions.json").read_text())
    assert found
    assert {d["category_id"] for d in found} <= set(range(1, len(CLASS_NAMES) + 1))
    assert {d["image_id"] for d in found} <= set(range(1, 9))


def test_figures_and_detections_are_those_of_detectron2s_own_evaluator(
    fresh: tuple[dict[str, float | None], Path],
    new_config: Callable[..., Any],
    new_detector: Callable[..., Any],
    val_name: str,
    tmp_path: Path,
) -> None:
    figures, folder = fresh
    cfg = new_config()
    stock = COCOEvaluator(val_name, ("bbox", "segm"), distributed=False, output_dir=str(tmp_path), use_fast_impl=False)
    expected = inference_on_dataset(new_detector(cfg), evaluation_loader(cfg, val_name, 0), stock)
    found = [
        json.loads(path.read_text()) for path in (folder / "predictions.json", tmp_path / "coco_instances_results.json")
    ]
    assert found[0] == found[1]
    for task, of_task in expected.items():
        for name, value in of_task.items():
            ours = figures[f"{task}/{name}"]
            assert ours == pytest.approx(value, abs=1e-9) if ours is not None else math.isnan(value)


def test_a_detector_without_masks_is_scored_by_its_boxes(
    new_config: Callable[..., Any], val_name: str, tmp_path: Path
) -> None:
    cfg = new_config()
    cfg.MODEL.MASK_ON = False
    metrics = evaluate_detector(cfg, Oracle(val_name, masks=False), val_name, spec_into(tmp_path))
    assert metrics["bbox/AP"] == pytest.approx(100)
    assert not [name for name in metrics if name.startswith("segm")]


def test_a_detector_that_finds_nothing_is_warned_about(
    new_config: Callable[..., Any], val_name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blind = Oracle(val_name, sees=False)
    assert evaluate_detector(new_config(), blind, val_name, spec_into(tmp_path))["bbox/AP"] == 0
    assert capsys.readouterr().out == "warning: the detector found nothing on 8 images; every AP is 0\n"


def test_scores_that_are_no_numbers_are_refused(new_config: Callable[..., Any], val_name: str, tmp_path: Path) -> None:
    with pytest.raises(PCDError, match=r"predictions\.json: record 0 has a score or box that is no number"):
        evaluate_detector(new_config(), Oracle(val_name, score=math.nan), val_name, spec_into(tmp_path))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_image_is_named_in_one_line(
    new_config: Callable[..., Any], shapes_set: Path, tmp_path: Path, workers: int
) -> None:
    shutil.copytree(shapes_set / "val", tmp_path / "val")
    damaged = tmp_path / "val" / "000003.jpg"
    damaged.write_bytes(damaged.read_bytes()[:-200])
    name, spec = register_split(Split(tmp_path / "val", shapes_set / "val.json")), spec_into(tmp_path)
    spec.runtime["workers"] = workers
    with pytest.raises(PCDError, match=rf"\A[^\n]*{damaged} cannot be read \(image file is truncated[^\n]*\Z"):
        evaluate_detector(new_config(), Oracle(name), name, spec)
