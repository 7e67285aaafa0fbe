import pytest
import timm
import torch
from torch import Tensor, nn
from torchvision.models import mobilenet_v3_large, resnet18, resnet34, resnet50, shufflenet_v2_x1_0
from torchvision.models.feature_extraction import create_feature_extractor

from pcd.backbones import Backbone, TimmBackbone
from pcd.errors import PCDError
from pcd.students import build_student
from tests.pcd.slow_parameters import slow_but

TORCHVISION = {
    "resnet18": (resnet18, "fc.", "layer4"),
    "resnet34": (resnet34, "fc.", "layer4"),
    "resnet50": (resnet50, "fc.", "layer4"),
    "mobilenet_v3_large": (mobilenet_v3_large, "classifier.", "features"),
    "shufflenet_v2_x1_0": (shufflenet_v2_x1_0, "fc.", "conv5"),
}
"""A student's name to torchvision's builder, the prefix of its classifier, and the node that puts out the last map."""
SMALL_TIMM = ("mobilenetv3_small_050", "convnext_atto", "pvt_v2_b0", "focalnet_tiny_srf")
QUICK = ("resnet18", "mobilenet_v3_large", "shufflenet_v2_x1_0")
"""One of each family."""


def _stirred(backbone: Backbone) -> Backbone:
    """With running statistics that are not the initial ones; in eval mode."""
    backbone(torch.randn(4, 3, 64, 64))
    return backbone.eval()


@pytest.mark.parametrize("name", slow_but(QUICK, TORCHVISION))
def test_tensors_are_torchvisions_without_the_classifier(name: str) -> None:
    build, classifier, _ = TORCHVISION[name]
    theirs = {k: v.shape for k, v in build().state_dict().items() if not k.startswith(classifier)}
    assert {k: v.shape for k, v in build_student(name).state_dict().items()} == theirs


@pytest.mark.parametrize("name", slow_but(QUICK, TORCHVISION))
def test_map_equals_torchvisions_features_with_the_same_weights(name: str) -> None:
    build, _, node = TORCHVISION[name]
    backbone = _stirred(build_student(name))
    theirs = create_feature_extractor(build(), {node: "map"})
    theirs.load_state_dict(backbone.state_dict())
    images = torch.randn(2, 3, 64, 96)
    torch.testing.assert_close(backbone(images), theirs.eval()(images)["map"])


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("resnet18", (64, 128, 256, 512)),
        ("resnet34", (64, 128, 256, 512)),
        ("resnet50", (256, 512, 1024, 2048)),
        ("mobilenet_v3_large", (24, 40, 112, 960)),
        ("shufflenet_v2_x1_0", (24, 116, 232, 1024)),
        ("timm:mobilenetv3_large_100", (24, 40, 112, 960)),
        ("timm:convnext_atto", (40, 80, 160, 320)),
    ],
)
@pytest.mark.parametrize("size", [(64, 96), (32, 32)], ids=str)
def test_stages_have_strides_4_to_32_and_their_channels(
    name: str, channels: tuple[int, ...], size: tuple[int, int]
) -> None:
    backbone = build_student(name).eval()
    maps = backbone.stages(torch.randn(1, 3, *size))
    expected = {f"res{i + 2}": (1, c, size[0] // 2 ** (i + 2), size[1] // 2 ** (i + 2)) for i, c in enumerate(channels)}
    assert {stage: tuple(m.shape) for stage, m in maps.items()} == expected
    assert backbone.channels == channels[-1]


@pytest.mark.parametrize("name", slow_but((*QUICK, "timm:convnext_atto"), [*TORCHVISION, "timm:convnext_atto"]))
def test_the_map_is_the_deepest_stage(name: str) -> None:
    backbone, images = build_student(name).eval(), torch.randn(1, 3, 64, 64)
    assert torch.equal(backbone(images), backbone.stages(images)["res5"])


@pytest.mark.parametrize(
    "name", slow_but((*QUICK, "timm:convnext_atto"), [*TORCHVISION, *(f"timm:{name}" for name in SMALL_TIMM)])
)
def test_every_parameter_takes_a_gradient_from_the_map(name: str) -> None:
    backbone = build_student(name)
    backbone(torch.randn(2, 3, 64, 64)).square().sum().backward()
    assert [n for n, p in backbone.named_parameters() if p.grad is None] == []


def test_mobilenets_running_statistics_follow_at_the_released_codes_pace() -> None:
    norms = [m for m in build_student("mobilenet_v3_large").modules() if isinstance(m, nn.BatchNorm2d)]
    assert {(norm.momentum, norm.eps) for norm in norms} == {(0.1, 1e-3)}


# ---- timm


def _features(name: str, tensors: dict[str, Tensor]) -> nn.Module:
    network: nn.Module = timm.create_model(name, features_only=True)
    network.load_state_dict(tensors, strict=True)
    return network.eval()


@pytest.mark.parametrize("name", slow_but(("mobilenetv3_small_050", "convnext_atto"), SMALL_TIMM))
def test_tensors_load_into_timms_features_and_give_the_same_maps(name: str) -> None:
    backbone, images = _stirred(TimmBackbone(name)), torch.randn(2, 3, 64, 96)
    theirs = _features(name, backbone.state_dict())(images)[-1]
    if theirs.shape[1] != backbone.channels:  # focalnet puts channels last
        theirs = theirs.permute(0, 3, 1, 2)
    torch.testing.assert_close(backbone(images), theirs)


def test_tensors_keep_timms_names_below_other_modules_too() -> None:
    backbone = TimmBackbone("convnext_atto")
    nested = nn.ModuleDict({"student": backbone, "other": nn.Linear(2, 2)})
    names = {f"student.{name}" for name in timm.create_model("convnext_atto", features_only=True).state_dict()}
    assert set(nested.state_dict()) == names | {"other.weight", "other.bias"}


def test_tensors_come_back_below_other_modules_too() -> None:
    nested, other = (nn.ModuleDict({"student": TimmBackbone("convnext_atto")}) for _ in range(2))
    nested.load_state_dict(other.state_dict(), strict=True)
    torch.testing.assert_close(nested.state_dict(), other.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("resnet81", 'unknown student "timm:resnet81": did you mean "timm:resnet18"?'),
        ("resnet18.a1_in1k", 'did you mean "timm:resnet18"?'),
        ("hf-hub:timm/resnet18", 'unknown student "timm:hf-hub:timm/resnet18"'),
        ("local-dir:here", 'unknown student "timm:local-dir:here"'),
        ("vit_tiny_patch16_224", "its deepest map has stride 16, not 32"),
        ("levit_128s", "its deepest map has stride 64, not 32"),
        ("swin_tiny_patch4_window7_224", "it does not take images of any size (Input height (64)"),
        ("hrnet_w18_small", "66 of its tensors do not reach the deepest map"),
        ("inception_v3", "it does not take images of any size"),
    ],
)
def test_a_model_that_cannot_be_a_student_is_refused_in_one_line(name: str, told: str) -> None:
    with pytest.raises(PCDError) as caught:
        TimmBackbone(name)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_building_leaves_the_network_in_train_mode_and_without_gradients() -> None:
    backbone = TimmBackbone("convnext_atto")
    assert all(module.training for module in backbone.modules())
    assert [n for n, p in backbone.named_parameters() if p.grad is not None] == []
