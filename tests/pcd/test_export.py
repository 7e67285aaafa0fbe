from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import nn

from pcd.errors import PCDError
from pcd.export import (
    DETECTRON2_RESNETS,
    export_backbone,
    export_for_detectron2,
    load_backbone,
    load_exactly,
    to_detectron2_name,
)
from pcd.students import STUDENTS, build_student
from tests.pcd.slow_parameters import slow_but


def _network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


def test_tensors_come_back_as_they_were(tmp_path: Path) -> None:
    network = _network()
    export_backbone(network, tmp_path / "b.safetensors", {})
    torch.testing.assert_close(load_backbone(tmp_path / "b.safetensors"), dict(network.state_dict()), rtol=0, atol=0)


def test_channels_last_weights_come_back_with_equal_values(tmp_path: Path) -> None:
    network = _network().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    export_backbone(network, tmp_path / "b.safetensors", {})
    assert torch.equal(load_backbone(tmp_path / "b.safetensors")["0.weight"], network.state_dict()["0.weight"])


def test_metadata_travels_in_the_file(tmp_path: Path) -> None:
    export_backbone(_network(), tmp_path / "b.safetensors", {"student": "resnet18"})
    with safe_open(tmp_path / "b.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt", "student": "resnet18"}


def test_nothing_but_the_backbone_is_left(tmp_path: Path) -> None:
    export_backbone(_network(), tmp_path / "b.safetensors", {})
    assert [p.name for p in tmp_path.iterdir()] == ["b.safetensors"]


@pytest.mark.parametrize(
    "content", [b"", b"garbage", b"\x08\0\0\0\0\0\0\0{not json"], ids=["empty", "garbage", "header"]
)
def test_damaged_file_is_the_users_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "b.safetensors").write_bytes(content)
    with pytest.raises(PCDError, match=r"b\.safetensors cannot be read"):
        load_backbone(tmp_path / "b.safetensors")


def test_truncated_file_is_the_users_error(tmp_path: Path) -> None:
    export_backbone(_network(), tmp_path / "b.safetensors", {})
    (tmp_path / "b.safetensors").write_bytes((tmp_path / "b.safetensors").read_bytes()[:-1])
    with pytest.raises(PCDError, match="cannot be read"):
        load_backbone(tmp_path / "b.safetensors")


def test_missing_file_is_the_users_error(tmp_path: Path) -> None:
    with pytest.raises(PCDError, match="cannot be read"):
        load_backbone(tmp_path / "b.safetensors")


def test_a_file_that_says_it_is_of_another_student_is_refused(tmp_path: Path) -> None:
    export_backbone(_network(), tmp_path / "b.safetensors", {"student": "resnet18"})
    assert load_backbone(tmp_path / "b.safetensors", "resnet18")
    with pytest.raises(PCDError, match=r"\A[^\n]*is of the student resnet18, not of timm:resnet18; [^\n]*\Z"):
        load_backbone(tmp_path / "b.safetensors", "timm:resnet18")


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("conv1.weight", "stem.conv1.weight"),
        ("bn1.running_mean", "stem.conv1.norm.running_mean"),
        ("layer1.0.conv1.weight", "res2.0.conv1.weight"),
        ("layer1.1.bn2.num_batches_tracked", "res2.1.conv2.norm.num_batches_tracked"),
        ("layer2.0.downsample.0.weight", "res3.0.shortcut.weight"),
        ("layer2.0.downsample.1.weight", "res3.0.shortcut.norm.weight"),
        ("layer4.2.bn1.bias", "res5.2.conv1.norm.bias"),
    ],
)
def test_a_tensor_is_renamed_as_detectron2_calls_it(ours: str, theirs: str) -> None:
    assert to_detectron2_name(ours) == theirs


@pytest.mark.parametrize("name", slow_but(("resnet18", "timm:test_resnet"), [*STUDENTS, "timm:test_resnet"]))
def test_any_students_backbone_comes_back(name: str, tmp_path: Path) -> None:
    first, second = build_student(name), build_student(name)
    export_backbone(first, tmp_path / "b.safetensors", {})
    load_exactly(second, load_backbone(tmp_path / "b.safetensors"))
    torch.testing.assert_close(second.state_dict(), first.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize(
    "other", slow_but(("timm:test_resnet",), ["resnet34", "mobilenet_v3_large", "timm:test_resnet"])
)
def test_another_students_tensors_are_refused(other: str, tmp_path: Path) -> None:
    export_backbone(build_student(other), tmp_path / "b.safetensors", {})
    with pytest.raises(PCDError, match=r"does not fit: .* was it pre-trained with another student"):
        load_exactly(build_student("resnet18"), load_backbone(tmp_path / "b.safetensors"))


@pytest.mark.parametrize("name", slow_but(("resnet18",), DETECTRON2_RESNETS))
def test_detectron2s_file_is_read_without_running_code(name: str, tmp_path: Path) -> None:
    student = build_student(name)
    export_for_detectron2(student, tmp_path / "b.pth")
    read = torch.load(tmp_path / "b.pth", weights_only=True)
    assert (read["matching_heuristics"], read["__author__"]) == (True, "pcd")
    kept = {n: t for n, t in student.state_dict().items() if not n.endswith("num_batches_tracked")}
    torch.testing.assert_close(read["model"], {to_detectron2_name(n): t for n, t in kept.items()}, rtol=0, atol=0)
    assert [p.name for p in tmp_path.iterdir()] == ["b.pth"]
