"""What is looked at before the first step."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.layers import FrozenBatchNorm2d
from PIL import Image

from eval.data import DataSet, Split, read_data_set
from eval.detectron.before_training import check_annotations, check_normalisation, check_pixels, check_recipe
from eval.finetune_settings import FinetuneSettings
from pcd.errors import PCDError


@pytest.fixture(scope="module")
def detector(new_config: Callable[..., Any], new_detector: Callable[..., Any]) -> Any:
    return new_detector(new_config())


@pytest.fixture
def data(shapes_set: Path) -> DataSet:
    return read_data_set(shapes_set)


@pytest.fixture
def changed_data(data: DataSet, tmp_path: Path) -> Callable[..., DataSet]:
    """The shapes set with other annotations of its training images."""

    def change(annotate: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> DataSet:
        coco = json.loads(data.train.annotations.read_text())
        coco["annotations"] = annotate(coco["annotations"])
        (tmp_path / "train.json").write_text(json.dumps(coco))
        return replace(data, train=Split(data.train.images, tmp_path / "train.json"))

    return change


def test_the_recipe_is_told_and_kept(
    detector: Any, settings: FinetuneSettings, data: DataSet, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = check_recipe(detector, settings, data, spans_ranks=False)
    assert recipe["norms"] == {
        "backbone": {"BatchNorm2d": 20}, "pyramid": {"BatchNorm2d": 8}, "heads": {"BatchNorm2d": 1},
    }  # fmt: skip
    assert recipe["epochs"] == pytest.approx(8 * 4 / recipe["images"], abs=1e-3)
    told = capsys.readouterr().out
    assert "a protocol of its own" in told
    assert "4 images x 8 iterations" in told
    assert "pyramid 8 BatchNorm2d" in told


def test_an_evaluation_that_is_not_installed_is_told_before_the_training(
    settings: FinetuneSettings, data: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged, of_cityscapes = settings.model_copy(update={"score_by": "cityscapes"}), replace(data, score="cityscapes")
    assert check_annotations(judged, of_cityscapes)
    monkeypatch.setitem(sys.modules, "cityscapesscripts", None)
    with pytest.raises(PCDError, match=r"is not installed; pip install 'pcd-benchmark\[cityscapes\]', and fine-tune"):
        check_annotations(judged, of_cityscapes)


def test_the_departure_from_a_named_protocol_is_told(
    detector: Any, settings: FinetuneSettings, data: DataSet, capsys: pytest.CaptureFixture[str]
) -> None:
    check_recipe(detector, settings.model_copy(update={"base": "fpn_1x"}), data, spans_ranks=False)
    assert (
        "departs from the protocol fpn_1x: iterations 8 (named: 90000), batch 4 (named: 16)" in capsys.readouterr().out
    )


def test_masks_are_needed_where_masks_are_trained(
    settings: FinetuneSettings, changed_data: Callable[..., DataSet]
) -> None:
    data = changed_data(lambda objects: [{k: v for k, v in a.items() if k != "segmentation"} for a in objects])
    with pytest.raises(PCDError, match=r"have no mask, and mask_rcnn_fpn needs them; set .* to faster_rcnn_fpn"):
        check_annotations(settings, data)
    boxes = settings.model_copy(update={"architecture": "faster_rcnn_fpn"})
    file_names, masks = check_annotations(boxes, data)
    assert 0 < len(file_names) <= 16
    assert masks is None


def test_masks_are_needed_where_they_are_judged_as_well(
    settings: FinetuneSettings, changed_data: Callable[..., DataSet], data: DataSet
) -> None:
    bare = changed_data(lambda objects: [{k: v for k, v in a.items() if k != "segmentation"} for a in objects])
    with pytest.raises(PCDError, match="have no mask, and mask_rcnn_fpn needs them"):
        check_annotations(settings, replace(data, val=bare.train))


def _as_polygon(a: dict[str, Any]) -> dict[str, Any]:
    x, y, width, height = a["bbox"]
    return a | {"segmentation": [[x, y, x + width, y, x + width, y + height, x, y + height]]}


@pytest.mark.parametrize(
    ("annotate", "masks"),
    [
        (lambda objects: objects, "bitmask"),
        (lambda objects: [_as_polygon(a) for a in objects], "polygon"),
        (lambda objects: [*map(_as_polygon, objects[1:]), objects[0]], "bitmask"),
        (lambda objects: [*map(_as_polygon, objects[1:]), objects[0] | {"iscrowd": 1}], "polygon"),
    ],
    ids=["run lengths", "polygons", "one of run lengths", "a crowd of run lengths"],
)
def test_masks_are_polygons_where_all_but_those_of_crowds_are(
    detector: Any,
    settings: FinetuneSettings,
    changed_data: Callable[..., DataSet],
    capsys: pytest.CaptureFixture[str],
    annotate: Callable[..., Any],
    masks: str,
) -> None:
    named = settings.model_copy(update={"base": "fpn_1x"})
    recipe = check_recipe(detector, named, changed_data(annotate), spans_ranks=False)
    assert recipe["masks"] == masks
    is_told = "masks are read as bitmaps, as some are no polygons"
    assert (is_told in capsys.readouterr().out) == any(is_told in line for line in recipe["departures"])
    assert any(is_told in line for line in recipe["departures"]) == (masks == "bitmask")


def test_another_share_of_the_batch_than_the_protocol_means_is_told_and_kept(
    detector: Any, settings: FinetuneSettings, data: DataSet, capsys: pytest.CaptureFixture[str]
) -> None:
    named = settings.model_copy(update={"base": "fpn_1x"})
    (_, line) = check_recipe(detector, named, data, spans_ranks=False)["departures"]
    assert line.startswith("4 images of a step over one process are 4 on each, where fpn_1x means 2 (16 over 8)")
    assert line in capsys.readouterr().out
    assert check_recipe(detector, settings, data, spans_ranks=False)["departures"] == []


def test_a_set_without_objects_is_refused(settings: FinetuneSettings, changed_data: Callable[..., DataSet]) -> None:
    with pytest.raises(PCDError, match="has no object to train on"):
        check_annotations(settings, changed_data(lambda objects: [a | {"iscrowd": 1} for a in objects]))


def test_the_pixels_are_those_that_the_detector_sees(detector: Any, tmp_path: Path) -> None:
    pixels = np.zeros((8, 8, 3), dtype=np.uint8)
    pixels[:4] = 255
    Image.fromarray(pixels).save(tmp_path / "half.png")
    found = check_pixels(detector, tmp_path, ["half.png"])
    # Half black and half white: (127.5 - mean) / std and 127.5 / std of ImageNet's red channel.
    assert found["mean"][0] == pytest.approx((127.5 - 123.675) / 58.395, abs=1e-3)
    assert found["std"][0] == pytest.approx(127.5 / 58.395, abs=1e-3)


def test_pixels_between_zero_and_one_are_refused(detector: Any, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 2, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "dark.png")
    with pytest.raises(PCDError, match=r"the pixels of 1 images in .*8-bit RGB"):
        check_pixels(detector, tmp_path, ["dark.png"])


def test_a_frozen_part_is_refused(
    new_config: Callable[..., Any], new_detector: Callable[..., Any], settings: FinetuneSettings
) -> None:
    detector = new_detector(new_config())
    detector.backbone.bottom_up.stem.conv1.norm = FrozenBatchNorm2d(64)
    with pytest.raises(PCDError, match=r"freezes nothing, and 1 parts .* \(first: backbone.bottom_up.stem"):
        check_normalisation(detector, settings, spans_ranks=False)
    detector.backbone.bottom_up.stem.conv1.norm = torch.nn.BatchNorm2d(64).requires_grad_(False)
    with pytest.raises(PCDError, match="2 parts of the detector are not so"):
        check_normalisation(detector, settings, spans_ranks=False)


def test_a_batchnorm_of_one_gpu_among_several_is_refused(detector: Any, settings: FinetuneSettings) -> None:
    with pytest.raises(PCDError, match="a BatchNorm of one GPU's images"):
        check_normalisation(detector, settings, spans_ranks=True)
