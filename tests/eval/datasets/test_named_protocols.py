"""Every named protocol, on a miniature of its set: real steps of training, and the evaluation by the set's rules."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eval.data import write_data_set
from eval.datasets.own import prepare_labelled
from eval.departures import resolve
from eval.finetune import finetune
from eval.finetune_settings import FinetuneSettings
from eval.protocols import PROTOCOLS
from eval.settings import CityscapesSet, VocSet
from pcd.errors import PCDError
from pcd.stage import Spec, read_spec

SMALL = {
    "iterations": 2, "warmup_iterations": 1, "batch": 2, "learning_rate": 0.001, "train_sizes": [64], "test_size": 64,
    "max_size": 128, "anchor_sizes": [8, 16, 32, 64, 128], "proposals_before_nms": [40, 40], "proposals": [20, 20],
    "rois_per_image": 16, "detections_per_image": 5,
}  # fmt: skip
"""What of a protocol is a matter of size alone; so are the widths of the parts that it has."""
WIDTHS = {"fpn_channels": 32, "box_head_width": 64, "mask_head_width": 32}
FIGURES = {
    "coco": {"bbox/AP", "segm/AP50", "bbox/APs"},
    "voc": {"bbox/AP", "bbox/AP50", "bbox/AP75", "bbox/AP-dog"},
    "cityscapes": {"segm/AP", "segm/AP50", "segm/AP-car"},
}
DETECTORS = [name for name in PROTOCOLS if isinstance(resolve(name), FinetuneSettings)]
QUICK = ("voc_c4_24k", "cityscapes_fpn")

Fine = Callable[..., tuple[Spec, dict[str, Any]]]


@pytest.fixture
def sets(shapes_set: Path, voc: Path, cityscapes: Path, tmp_path: Path) -> dict[str, Path]:
    """Kind of a set to the folder that its data stage left."""
    folders = {"coco": shapes_set}
    for name, settings in (("voc", VocSet(folder=voc)), ("cityscapes", CityscapesSet(folder=cityscapes))):
        folders[name] = tmp_path / f"data-{name}"
        folders[name].mkdir()
        data, _ = prepare_labelled(settings, folders[name], 1, lambda *_: None)
        write_data_set(folders[name], data)
    return folders


@pytest.fixture
def fine_tune(sets: dict[str, Path], new_spec: Callable[..., Path], tmp_path: Path) -> Fine:
    def run(name: str, student: str = "resnet18", kind: str | None = None) -> tuple[Spec, dict[str, Any]]:
        named = resolve(name).model_dump(mode="json")
        widths = WIDTHS if "fpn" in named["architecture"] else {}
        widths = widths if "mask" in named["architecture"] else {k: v for k, v in widths.items() if "mask" not in k}
        small = SMALL | widths | {"precise_bn_iterations": min(named["precise_bn_iterations"], 1)}
        settings = {"finetune": named | small, "student": student, "seed": 0}
        spec = read_spec(new_spec(tmp_path / "out", settings, {"data": sets[kind or PROTOCOLS[name].data_kind]}))
        return spec, finetune(spec)

    return run


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in DETECTORS]
)
def test_it_trains_and_is_scored_by_the_rules_of_its_set(name: str, fine_tune: Fine) -> None:
    spec, record = fine_tune(name)
    assert record["protocol"]["name"] == name
    assert {setting for setting, _, _ in record["protocol"]["difference"]} <= {*SMALL, *WIDTHS, "precise_bn_iterations"}
    assert record["metrics"].keys() >= FIGURES[PROTOCOLS[name].data_kind]
    assert all(value is None or 0 <= value <= 100 for value in record["metrics"].values())
    lines = [json.loads(line) for line in spec.metrics.path.read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    assert all(0 < line["loss"] < 100 for line in lines)


@pytest.mark.slow
@pytest.mark.parametrize("student", ["mobilenet_v3_large", "shufflenet_v2_x1_0", "timm:convnext_atto"])
def test_it_trains_over_every_kind_of_backbone(student: str, fine_tune: Fine) -> None:
    record = fine_tune("voc_fpn_24k", student)[1]
    assert record["matched_tensors"] > 100
    assert record["feature_difference"] < 1e-4


def test_voc_boxes_train_no_masks(fine_tune: Fine) -> None:
    with pytest.raises(PCDError, match="have no mask, and mask_rcnn_fpn needs them"):
        fine_tune("fpn_1x", kind="voc")


def test_another_sets_evaluation_is_refused(fine_tune: Fine) -> None:
    with pytest.raises(PCDError, match="is of kind coco, which score_by voc cannot judge"):
        fine_tune("voc_fpn_24k", kind="coco")
