from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import nn

from pcd.errors import PCDError
from pcd.export import export_backbone, load_backbone


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
