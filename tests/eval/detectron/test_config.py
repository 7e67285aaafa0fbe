"""The detector that a protocol's settings describe."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from detectron2 import model_zoo
from detectron2.layers import FrozenBatchNorm2d

from eval.departures import resolve
from eval.detectron.config import build_config
from eval.finetune_settings import C4_STUDENTS, FinetuneSettings
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


def test_c4_takes_the_students_that_detectron2_knows() -> None:
    assert tuple(DETECTRON2_RESNETS) == C4_STUDENTS


def test_one_seed_initialises_one_detector(cfg: Any, new_detector: Callable[..., Any]) -> None:
    first, second = new_detector(cfg, 3).state_dict(), new_detector(cfg, 3).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


# ---- the named protocols, against the published configurations that they are made of

AS_PRETRAINED = {
    "MODEL.BACKBONE.FREEZE_AT", "MODEL.DEVICE", "MODEL.PIXEL_MEAN", "MODEL.PIXEL_STD", "MODEL.RESNETS.STRIDE_IN_1X1",
    "MODEL.WEIGHTS", "INPUT.FORMAT",
}  # fmt: skip
"""Whatever the protocol, the input and the backbone are as in pre-training, and nothing is frozen."""
NORMS = {"MODEL.RESNETS.NORM", "MODEL.FPN.NORM", "MODEL.ROI_MASK_HEAD.NORM"}
C4_HEADS = {"MODEL.RESNETS.NORM", "MODEL.ROI_HEADS.NAME", "MODEL.ROI_HEADS.EXTRA_NORM"}
COCO = "COCO-InstanceSegmentation"


def flat(node: Any, prefix: str) -> dict[str, Any]:
    if not isinstance(node, dict):
        return {prefix: list(node) if isinstance(node, tuple) else node}
    return {key: value for name, inner in node.items() for key, value in flat(inner, f"{prefix}.{name}").items()}


@pytest.mark.parametrize(
    ("name", "zoo", "classes", "differing"),
    [
        ("fpn_1x", f"{COCO}/mask_rcnn_R_50_FPN_1x.yaml", 80, NORMS),
        ("fpn_1x_4conv1fc", "Misc/mask_rcnn_R_50_FPN_3x_syncbn.yaml", 80, set()),
        ("sslight_fpn_1x", f"{COCO}/mask_rcnn_R_50_FPN_1x.yaml", 80, {"MODEL.RESNETS.NORM"}),
        ("c4_1x", f"{COCO}/mask_rcnn_R_50_C4_1x.yaml", 80, C4_HEADS),
        ("voc_c4_24k", "PascalVOC-Detection/faster_rcnn_R_50_C4.yaml", 20, C4_HEADS | {"MODEL.ROI_MASK_HEAD.NUM_CONV"}),
        ("voc_fpn_24k", "PascalVOC-Detection/faster_rcnn_R_50_FPN.yaml", 20, NORMS),
        ("cityscapes_fpn", "Cityscapes/mask_rcnn_R_50_FPN.yaml", 8, NORMS),
    ],
)
def test_a_named_protocol_departs_from_detectron2s_file_as_it_says(
    name: str, zoo: str, classes: int, differing: set[str]
) -> None:
    settings = resolve(name)
    assert isinstance(settings, FinetuneSettings)
    ours, theirs = build_config(settings, "resnet50", classes, "cpu", sync_norm=True), model_zoo.get_config(zoo)
    parts = ("MODEL", "INPUT")
    here, there = ({k: v for part in parts for k, v in flat(cfg[part], part).items()} for cfg in (ours, theirs))
    assert {key for key in here.keys() | there.keys() if here.get(key) != there.get(key)} <= differing | AS_PRETRAINED
    assert {key for key in differing if here.get(key) == there.get(key)} == set()


def test_the_pyramid_and_the_heads_do_without_batchnorm_where_the_protocol_says_so(
    new_config: Callable[..., Any], new_detector: Callable[..., Any]
) -> None:
    detector = new_detector(new_config(norm_everywhere=False, box_head="4conv1fc"))
    norms = [name for name, module in detector.named_modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert norms
    assert [name for name in norms if not name.startswith("backbone.bottom_up.")] == []


def test_the_box_head_of_four_convolutions_has_one_linear_layer(
    new_config: Callable[..., Any], new_detector: Callable[..., Any]
) -> None:
    head = new_detector(new_config(box_head="4conv1fc")).roi_heads.box_head
    kinds = [type(part).__name__ for part in head]
    assert (kinds.count("Conv2d"), kinds.count("Linear")) == (4, 1)
    assert all(isinstance(conv.norm, torch.nn.BatchNorm2d) for conv in head.conv_norm_relus)
