"""The detector that a protocol's settings describe."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from detectron2.layers import FrozenBatchNorm2d

from eval.settings import DETECTOR_STUDENTS, FinetuneSettings
from eval.shapes import CLASS_NAMES
from pcd.export import DETECTRON2_RESNETS
from pcd.views import IMAGENET_MEAN, IMAGENET_STD


@pytest.fixture(scope="module")
def cfg(new_config: Callable[..., Any]) -> Any:
    return new_config()


@pytest.fixture(scope="module")
def detector(cfg: Any, new_detector: Callable[..., Any]) -> Any:
    return new_detector(cfg)


def test_every_parameter_is_trained(detector: Any) -> None:
    assert [name for name, parameter in detector.named_parameters() if not parameter.requires_grad] == []


def test_no_normalisation_is_frozen(detector: Any) -> None:
    norms = [m for m in detector.modules() if isinstance(m, (FrozenBatchNorm2d, torch.nn.BatchNorm2d))]
    assert {type(m).__name__ for m in norms} == {"BatchNorm2d"}


def test_several_gpus_share_their_statistics(new_config: Callable[..., Any]) -> None:
    cfg = new_config(sync_norm=True)
    norms = (cfg.MODEL.RESNETS.NORM, cfg.MODEL.FPN.NORM, cfg.MODEL.ROI_MASK_HEAD.NORM)
    assert norms == ("SyncBN", "SyncBN", "SyncBN")


def test_the_stride_is_in_the_three_by_three_convolution(cfg: Any) -> None:
    assert cfg.MODEL.RESNETS.STRIDE_IN_1X1 is False


def test_the_input_is_rgb(cfg: Any, detector: Any) -> None:
    assert cfg.INPUT.FORMAT == detector.input_format == "RGB"


def test_the_input_is_normalised_by_imagenets_mean_and_std(detector: Any) -> None:
    assert detector.pixel_mean.flatten().tolist() == pytest.approx([255 * x for x in IMAGENET_MEAN])
    assert detector.pixel_std.flatten().tolist() == pytest.approx([255 * x for x in IMAGENET_STD])


def test_no_foreign_weights_are_loaded(cfg: Any) -> None:
    assert cfg.MODEL.WEIGHTS == ""


def test_every_level_has_the_anchors_of_its_size(detector: Any, settings: FinetuneSettings) -> None:
    generator = detector.proposal_generator.anchor_generator
    assert generator.strides == [4, 8, 16]
    for cell, size in zip(generator.cell_anchors, settings.anchor_sizes, strict=True):
        areas = (cell[:, 2] - cell[:, 0]) * (cell[:, 3] - cell[:, 1])
        assert areas.tolist() == pytest.approx([size**2] * 3, rel=1e-4)


def test_five_anchor_sizes_use_the_whole_pyramid(new_config: Callable[..., Any]) -> None:
    assert new_config(anchor_sizes=(8, 16, 32, 64, 128)).MODEL.RPN.IN_FEATURES == ["p2", "p3", "p4", "p5", "p6"]


def test_the_heads_tell_the_classes_apart(detector: Any) -> None:
    assert detector.roi_heads.box_predictor.cls_score.out_features == len(CLASS_NAMES) + 1
    assert detector.roi_heads.mask_head.predictor.out_channels == len(CLASS_NAMES)


def test_the_widths_are_those_of_the_settings(detector: Any, settings: FinetuneSettings) -> None:
    assert detector.backbone.output_shape()["p2"].channels == settings.fpn_channels
    assert detector.roi_heads.box_head.output_shape.channels == settings.box_head_width
    assert detector.roi_heads.mask_head.deconv.out_channels == settings.mask_head_width


def test_proposals_and_detections_are_limited_as_set(detector: Any, settings: FinetuneSettings) -> None:
    rpn = detector.proposal_generator
    assert (rpn.pre_nms_topk[True], rpn.pre_nms_topk[False]) == settings.proposals_before_nms
    assert (rpn.post_nms_topk[True], rpn.post_nms_topk[False]) == settings.proposals
    assert detector.roi_heads.batch_size_per_image == settings.rois_per_image
    assert detector.roi_heads.box_predictor.test_topk_per_image == settings.detections_per_image


def test_image_sizes_are_those_of_the_settings(new_config: Callable[..., Any]) -> None:
    cfg = new_config(train_sizes=(64, 96), test_size=80, max_size=128)
    assert tuple(cfg.INPUT.MIN_SIZE_TRAIN) == (64, 96)
    assert (cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TEST) == (80, 128, 128)


@pytest.mark.parametrize(("student", "blocks"), [("resnet18", 2), ("resnet34", 6), ("resnet50", 6)])
def test_the_backbone_is_as_deep_as_the_student(
    student: str, blocks: int, new_config: Callable[..., Any], new_detector: Callable[..., Any]
) -> None:
    assert len(new_detector(new_config(student)).backbone.bottom_up.res4) == blocks


def test_every_student_that_settings_allow_has_a_detector() -> None:
    assert tuple(DETECTRON2_RESNETS) == DETECTOR_STUDENTS


def test_one_seed_initialises_one_detector(cfg: Any, new_detector: Callable[..., Any]) -> None:
    first, second = new_detector(cfg, 3).state_dict(), new_detector(cfg, 3).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
