import pytest
import torch
from torch import nn

from pcd.attention import PixelAttention
from pcd.errors import PCDError
from pcd.settings import STUDENT_NAMES
from pcd.students import STUDENTS, Student, build_student
from tests.pcd.slow_parameters import slow_but

NAMES = slow_but(("resnet18", "mobilenet_v3_large", "timm:convnext_atto"), [*STUDENTS, "timm:convnext_atto"])


def _student(attention_heads: int | None) -> Student:
    return Student(build_student("resnet18"), (512, 24, 12), (12, 24, 12), attention_heads)


def test_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(PCDError, match='unknown student "resnet81": did you mean "resnet18"'):
        build_student("resnet81")


def test_unknown_timm_model_is_answered_with_the_nearest() -> None:
    with pytest.raises(PCDError, match='unknown student "timm:convnext_atom": did you mean "timm:convnext_atto"'):
        build_student("timm:convnext_atom")


def test_the_names_that_plans_know_are_those_that_are_built() -> None:
    assert tuple(STUDENTS) == STUDENT_NAMES


@pytest.mark.parametrize("name", NAMES)
def test_weights_come_from_torchs_seed(name: str) -> None:
    torch.manual_seed(5)
    first = build_student(name).state_dict()
    torch.manual_seed(5)
    second = build_student(name).state_dict()
    assert all(torch.equal(first[tensor], second[tensor]) for tensor in first)


@pytest.mark.parametrize("name", NAMES)
def test_any_backbone_makes_a_student_with_the_default_heads(name: str) -> None:
    backbone = build_student(name)
    student = Student(backbone, (backbone.channels, 24, 12), (12, 24, 12), attention_heads=8)
    assert student(torch.randn(2, 3, 64, 64)).shape == (2, 12, 2, 2)


@pytest.mark.parametrize("attention_heads", [None, 8])
def test_student_puts_out_the_predictors_channels(attention_heads: int | None) -> None:
    assert _student(attention_heads)(torch.randn(2, 3, 64, 64)).shape == (2, 12, 2, 2)


def test_projector_and_predictor_have_the_widths_asked_for() -> None:
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
    gradient = student.backbone.get_parameter("conv1.weight").grad
    assert gradient is not None
    assert gradient.abs().sum() > 0


def test_attention_and_heads_are_no_part_of_the_backbone() -> None:
    assert set(_student(8).backbone.state_dict()) == set(build_student("resnet18").state_dict())


def test_a_resnet_by_its_numbers_is_torchvisions_of_these_numbers() -> None:
    named, numbered = build_student("resnet18"), build_student("resnet:basic:2,2,2,2:64,128,256,512")
    numbered.load_state_dict(named.state_dict())
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(numbered.eval()(images), named.eval()(images))
    assert numbered.channels == named.channels


@pytest.mark.parametrize(
    "name", ["resnet:", "resnet:basic:2,2,2:1,2,3,4", "resnet:wide:1,1,1,1:8,8,8,8", "resnet:basic:1,1,1,0:8,8,8,8"]
)
def test_a_resnet_by_wrong_numbers_is_answered_with_how_to_write_one(name: str) -> None:
    with pytest.raises(PCDError, match="by its numbers as resnet:basic:2,2,2,2:24,48,96,192"):
        build_student(name)


def test_a_pooled_student_puts_out_what_its_heads_say_of_the_mean() -> None:
    student = Student(build_student("resnet18"), (512, 24, 12), (), None, pooled=True).eval()
    images = torch.randn(2, 3, 64, 64)
    means = student.backbone(images).mean(dim=(2, 3), keepdim=True)
    torch.testing.assert_close(student(images), student.projector(means))
