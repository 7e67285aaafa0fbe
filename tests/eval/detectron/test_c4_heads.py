"""C4 detectors: the student's last stage is the head of every region."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from eval.detectron.backbone import check_features_equal, load_into_detector
from eval.detectron.c4_heads import EXTRA_NORM
from pcd.errors import PCDError
from pcd.students import build_student

C4 = {"architecture": "mask_rcnn_c4", "fpn_channels": 256, "box_head_width": 1024, "mask_head_convs": 0}


@pytest.mark.parametrize(("student", "tensors"), [("resnet18", 120), ("resnet34", 216), ("resnet50", 318)])
def test_res4_and_res5_are_the_students(
    student: str, tensors: int, new_config: Callable[..., Any], new_detector: Callable[..., Any], shapes_set: Path
) -> None:
    detector, own = new_detector(new_config(student, **C4, extra_norm=True)), build_student(student)
    assert load_into_detector(detector, own.state_dict()) == tensors
    image = sorted((shapes_set / "val").glob("*.jpg"))[0]
    assert check_features_equal(detector, own, image) < 1e-5


def test_a_perturbed_res5_is_refused(
    new_config: Callable[..., Any], new_detector: Callable[..., Any], shapes_set: Path
) -> None:
    detector, own = new_detector(new_config(**C4)), build_student("resnet18")
    load_into_detector(detector, own.state_dict())
    detector.roi_heads.res5[1].conv2.weight.data.mul_(1.05)
    with pytest.raises(PCDError, match="features differ"):
        check_features_equal(detector, own, sorted((shapes_set / "val").glob("*.jpg"))[0])


@pytest.mark.parametrize("student", ["resnet18", "resnet50"])
def test_the_extra_norm_stands_behind_res5_and_is_no_part_of_the_backbone(
    student: str, new_config: Callable[..., Any], new_detector: Callable[..., Any]
) -> None:
    plain, extra = (new_detector(new_config(student, **C4, extra_norm=value)) for value in (False, True))
    name, norm = list(extra.roi_heads.res5.named_children())[-1]
    assert name == EXTRA_NORM
    assert isinstance(norm, torch.nn.BatchNorm2d)
    assert norm.num_features == build_student(student).channels
    assert EXTRA_NORM not in dict(plain.roi_heads.res5.named_children())


def test_a_student_that_is_no_resnet_of_detectron2s_is_refused_in_one_line(new_config: Callable[..., Any]) -> None:
    with pytest.raises(PCDError, match='mask_rcnn_c4 cannot stand on "mobilenet_v3_large"') as caught:
        new_config("mobilenet_v3_large", **C4)
    assert "\n" not in str(caught.value)


def test_all_anchor_sizes_are_on_the_one_map(new_config: Callable[..., Any], new_detector: Callable[..., Any]) -> None:
    generator = new_detector(new_config(**C4, anchor_sizes=(16, 32, 64, 128))).proposal_generator.anchor_generator
    assert generator.strides == [16]
    assert [len(cell) for cell in generator.cell_anchors] == [4 * 3]
