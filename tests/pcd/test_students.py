from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet18, resnet34

from pcd.attention import PixelAttention
from pcd.errors import PCDError
from pcd.export import export_backbone, load_backbone
from pcd.layouts import HeadLayout
from pcd.students import ResNetBackbone, Student, build_student

HEAD = HeadLayout(widths=(192, 24, 12), bias=False, norm=True, last_norm="plain")
TORCHVISION = {"resnet18": resnet18, "resnet34": resnet34}


def _student(attention_heads: int | None) -> Student:
    return Student(build_student("resnet18"), HEAD, attention_heads)


def _torchvision_features(model: nn.Module, images: Tensor) -> Tensor:
    features: Tensor = nn.Sequential(*list(model.children())[:-2]).eval()(images)
    return features


def test_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(PCDError, match='unknown student "resnet81": did you mean "resnet18"'):
        build_student("resnet81")


@pytest.mark.parametrize("name", sorted(TORCHVISION))
def test_tensors_are_torchvisions_without_the_classifier(name: str) -> None:
    theirs = {k: v.shape for k, v in TORCHVISION[name]().state_dict().items() if not k.startswith("fc.")}
    assert {k: v.shape for k, v in build_student(name).state_dict().items()} == theirs


@pytest.mark.parametrize("name", sorted(TORCHVISION))
def test_map_equals_torchvisions_features_with_the_same_weights(name: str) -> None:
    backbone, theirs = build_student(name).eval(), TORCHVISION[name]()
    theirs.load_state_dict(backbone.state_dict(), strict=False)
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(backbone(images), _torchvision_features(theirs, images))


@pytest.mark.parametrize(
    ("stage", "stride", "channels"), [("res2", 4, 64), ("res3", 8, 128), ("res4", 16, 256), ("res5", 32, 512)]
)
def test_stage_has_its_stride_and_channels(stage: str, stride: int, channels: int) -> None:
    maps = build_student("resnet18").eval().stages(torch.randn(1, 3, 64, 96))
    assert maps[stage].shape == (1, channels, 64 // stride, 96 // stride)


def test_weights_come_from_torchs_seed() -> None:
    torch.manual_seed(5)
    first = build_student("resnet18").conv1.weight
    torch.manual_seed(5)
    assert torch.equal(build_student("resnet18").conv1.weight, first)


@pytest.mark.parametrize("attention_heads", [None, 8])
def test_student_puts_out_the_teachers_channels(attention_heads: int | None) -> None:
    assert _student(attention_heads)(torch.randn(2, 3, 64, 64)).shape == (2, 12, 2, 2)


def test_hidden_layers_have_the_teachers_widths() -> None:
    student = _student(None)
    widths = [
        m.weight.shape[:2] for part in (student.projector, student.predictor) for m in part if isinstance(m, nn.Conv2d)
    ]
    assert widths == [(24, 512), (12, 24), (24, 12), (12, 24)]


def test_attention_is_in_the_way_of_the_map_when_it_is_on() -> None:
    student = _student(8).eval()
    images = torch.randn(1, 3, 64, 64)
    before = student(images)
    assert isinstance(student.attention, PixelAttention)
    nn.init.normal_(student.attention.project.weight)
    assert not torch.allclose(student(images), before)


def test_backbone_takes_a_gradient_through_the_whole_student() -> None:
    student = _student(8)
    student(torch.randn(2, 3, 64, 64)).square().sum().backward()
    gradient = student.backbone.conv1.weight.grad
    assert gradient is not None
    assert gradient.abs().sum() > 0


@pytest.fixture
def exported(tmp_path: Path) -> tuple[Student, Path]:
    student = _student(8).train()
    student(torch.randn(4, 3, 64, 64))  # so that the running statistics are not the initial ones
    export_backbone(student.backbone, tmp_path / "backbone.safetensors", {"student": "resnet18"})
    return student.eval(), tmp_path / "backbone.safetensors"


def test_exported_backbone_lacks_only_the_classifier_of_torchvision(exported: tuple[Student, Path]) -> None:
    missing, unexpected = resnet18().load_state_dict(load_backbone(exported[1]), strict=False)
    assert (missing, unexpected) == (["fc.weight", "fc.bias"], [])


def test_exported_backbone_has_the_same_features_in_torchvision(exported: tuple[Student, Path]) -> None:
    student, path = exported
    theirs = resnet18()
    theirs.load_state_dict(load_backbone(path), strict=False)
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(_torchvision_features(theirs, images), student.backbone(images))


def test_attention_and_heads_are_left_out_of_the_export(exported: tuple[Student, Path]) -> None:
    assert set(load_backbone(exported[1])) == set(ResNetBackbone([2, 2, 2, 2]).state_dict())
