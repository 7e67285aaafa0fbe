"""Load a publisher's checkpoint: safely, strictly in both directions, into a frozen teacher."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import Tensor, nn

from pcd.adaptor import SpatialAdaptor
from pcd.errors import PCDError, unknown_name
from pcd.heads import build_vector_head
from pcd.layouts import TrunkLayout
from pcd.teachers.entry import TeacherEntry
from pcd.teachers.registry import TEACHERS

__all__ = ["Teacher", "build_trunk", "load_entry", "load_teacher"]


class Teacher(nn.Module):
    """Trunk and SpatialAdaptor, frozen: eval mode whatever `train()` is called with, no gradient."""

    def __init__(self, trunk: nn.Module, head: nn.Sequential) -> None:
        super().__init__()
        self.trunk = trunk.requires_grad_(False).eval()
        self.adaptor = SpatialAdaptor(head)
        self.eval()  # the flag of this module too, which starts as True

    def train(self, mode: bool = True) -> "Teacher":
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, O, H/32, W/32)."""
        maps: Tensor = self.adaptor(self.trunk(images))
        return maps


def load_teacher(name: str, path: Path, *, keep_last_norm: bool = False) -> Teacher:
    """Load the checkpoint at `path` as the registry's teacher `name`.

    Args:
        keep_last_norm: keep the BatchNorm without affine that ends the head; the released code drops it.

    Raises:
        PCDError: unknown name, an unreadable or unsafe file, a missing or an extra tensor, or a wrong shape.
    """
    if name not in TEACHERS:
        raise unknown_name("teacher", name, TEACHERS)
    return load_entry(TEACHERS[name], path, keep_last_norm=keep_last_norm)


def load_entry(entry: TeacherEntry, path: Path, *, keep_last_norm: bool = False) -> Teacher:
    tensors = _tensors_under_prefix(entry, _read_safely(path), path)
    is_head = {name: name.startswith(entry.head_prefix) for name in tensors}
    trunk, head = build_trunk(entry.trunk), build_vector_head(entry.head)
    _load_exactly(trunk, {n: t for n, t in tensors.items() if not is_head[n]}, f"the trunk of {entry.name}", path)
    head_tensors = {n.removeprefix(entry.head_prefix): t for n, t in tensors.items() if is_head[n]}
    _load_exactly(head, head_tensors, f"the head of {entry.name}", path)
    if entry.head.last_norm == "plain" and not keep_last_norm:
        head = head[:-1]
    return Teacher(trunk, head)


def build_trunk(layout: TrunkLayout) -> nn.Module:
    """A ResNet of any width that maps (B, 3, H, W) to (B, C, H/32, W/32); same graph and names as torchvision's."""
    trunk: nn.Module = ResNet(
        block=BasicBlock if layout.block == "basic" else Bottleneck,
        layers=layout.layers,
        channels=layout.channels,
        num_classes=0,
        global_pool="",
    )
    return trunk


def _read_safely(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise PCDError(f"teacher file {path} does not exist; `pcd run` fetches it") from None
    except pickle.UnpicklingError as error:
        if "GLOBAL" not in str(error).upper():
            raise PCDError(f"{path} is no checkpoint or damaged ({_first_sentence(error)}); fetch it again") from None
        raise PCDError(
            f"{path} holds more than tensors and was not read, since unpickling it could run foreign code "
            f"({_first_sentence(error)}); use the publisher's own file"
        ) from None
    except (EOFError, OSError, RuntimeError, ValueError, KeyError) as error:
        raise PCDError(f"{path} is truncated or no checkpoint ({_first_sentence(error)}); fetch it again") from None


def _first_sentence(error: Exception) -> str:
    text = " ".join(str(error).split())
    # torch explains at length how to switch the safety off; the object's name stands behind one of these.
    start = max(text.find("Unsupported global"), text.find("Trying to load unsupported GLOBAL"), 0)
    return text[start : start + 160] or type(error).__name__


def _tensors_under_prefix(entry: TeacherEntry, raw: Any, path: Path) -> dict[str, Tensor]:
    if not isinstance(raw, Mapping) or not isinstance(raw.get(entry.top_key), Mapping):
        found = f"keys {', '.join(map(str, list(raw)[:5]))}" if isinstance(raw, Mapping) else type(raw).__name__
        raise PCDError(f'{path} has no "{entry.top_key}" with tensors (found: {found}); it is not a {entry.name} file')
    tensors = {
        name.removeprefix(entry.trunk_prefix): tensor
        for name, tensor in raw[entry.top_key].items()
        if isinstance(name, str) and name.startswith(entry.trunk_prefix)
    }
    if not tensors:
        raise PCDError(f'{path} has no tensor under "{entry.trunk_prefix}"; it is not a {entry.name} file')
    return tensors


def _load_exactly(module: nn.Module, tensors: Mapping[str, Tensor], what: str, path: Path) -> None:
    expected = module.state_dict()
    missing, extra = sorted(expected.keys() - tensors.keys()), sorted(tensors.keys() - expected.keys())
    if missing or extra:
        raise PCDError(f"{path} does not fit {what}: {_list('missing', missing)}; {_list('unexpected', extra)}")
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise PCDError(f"{path} does not fit {what}: {name} is no tensor")
        if tensor.shape != expected[name].shape:
            raise PCDError(
                f"{path} does not fit {what}: {name} is {tuple(tensor.shape)}, expected {tuple(expected[name].shape)}"
            )
    module.load_state_dict(dict(tensors), strict=True)


def _list(what: str, names: list[str]) -> str:
    shown = ", ".join(names[:3]) + (" …" if len(names) > 3 else "")
    return f"{len(names)} {what}" + (f" ({shown})" if names else "")
