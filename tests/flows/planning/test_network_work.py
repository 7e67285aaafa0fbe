"""Counted work against what others state of the same networks."""

import pytest

from eval.departures import resolve
from eval.finetune_settings import FinetuneSettings
from flows.planning.network_work import (
    BACKBONES,
    backbone_size,
    detector_gmacs,
    detector_millions,
    mlp_gmacs,
    trunk_gmacs,
)
from pcd.layouts import ResNetLayout
from pcd.settings import STUDENT_NAMES
from pcd.teachers.registry import TEACHERS


@pytest.mark.parametrize(
    ("layout", "stated"),
    [
        (ResNetLayout(block="basic", layers=(2, 2, 2, 2), channels=(64, 128, 256, 512)), BACKBONES["resnet18"].gmacs),
        (ResNetLayout(block="basic", layers=(3, 4, 6, 3), channels=(64, 128, 256, 512)), BACKBONES["resnet34"].gmacs),
        (TEACHERS["mocov3_r50_1000"].trunk, BACKBONES["resnet50"].gmacs),
        (TEACHERS["mocov3_vits"].trunk, 4.6),  # DeiT's paper, table 5
        (TEACHERS["mocov3_vitb"].trunk, 17.6),
    ],
    ids=["resnet18", "resnet34", "resnet50", "vit-s", "vit-b"],
)
def test_a_trunk_counts_what_is_stated_of_it(layout: ResNetLayout, stated: float) -> None:
    assert trunk_gmacs(layout) == pytest.approx(stated, rel=0.01)


def test_mask_rcnn_counts_what_mmdetection_and_detectron2_state_of_it() -> None:
    settings = FinetuneSettings()
    assert detector_gmacs(settings, "resnet50", 1280 * 800, training=False) == pytest.approx(260, rel=0.02)
    assert detector_millions(settings, "resnet50") == pytest.approx(44.2, rel=0.01)


@pytest.mark.parametrize(
    ("protocol", "student", "millions"),
    [
        ("fpn_1x", "resnet18", 30.93),
        ("fpn_1x", "mobilenet_v3_large", 22.77),
        ("fpn_1x", "shufflenet_v2_x1_0", 21.12),
        ("fpn_1x_4conv1fc", "resnet18", 32.24),
        ("c4_1x", "resnet18", 12.33),
        ("c4_1x", "resnet50", 35.18),
        ("voc_c4_24k", "resnet18", 11.80),
        ("voc_fpn_24k", "resnet18", 28.30),
    ],
)
def test_a_protocols_detector_counts_the_parameters_of_the_one_that_was_built(
    protocol: str, student: str, millions: float
) -> None:
    settings = resolve(protocol)
    assert isinstance(settings, FinetuneSettings)
    assert detector_millions(settings, student) == pytest.approx(millions, rel=0.005)  # built for 5 classes


def test_a_c4_detector_computes_res5_for_every_region() -> None:
    c4 = FinetuneSettings(architecture="faster_rcnn_c4", proposals=(1000, 1000))
    fewer = c4.model_copy(update={"proposals": (1000, 500)})
    more = detector_gmacs(c4, "resnet50", 800 * 800, training=False)
    less = detector_gmacs(fewer, "resnet50", 800 * 800, training=False)
    res5 = 4.089 - trunk_gmacs(ResNetLayout(block="bottleneck", layers=(3, 4, 6), channels=(64, 128, 256)))
    assert (more - less) / 500 == pytest.approx(res5, rel=0.02)


def test_every_student_by_name_has_a_size_and_a_timm_model_a_stated_guess() -> None:
    assert set(STUDENT_NAMES) == set(BACKBONES)
    assert backbone_size("timm:convnext_atto").gmacs > 0


def test_an_mlp_over_pixels_counts_its_weights_once_a_pixel() -> None:
    assert mlp_gmacs((512, 4096, 256), 49) == pytest.approx((512 * 4096 + 4096 * 256) * 49 / 1e9)
