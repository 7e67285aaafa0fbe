"""A frozen teacher from its file: the publisher's, or what the teacher stage made of it."""

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from pcd.adaptor import SpatialAdaptor
from pcd.errors import unknown_name
from pcd.teachers.entry import TeacherEntry
from pcd.teachers.registry import TEACHERS
from pcd.teachers.tensors import build_networks, read_converted, read_published

__all__ = ["Teacher", "load_entry", "load_teacher"]

Gate = Literal["pooled", "pixel"]


class Teacher(nn.Module):
    """Trunk and head over maps, frozen: eval mode whatever `train()` is called with, no gradient."""

    def __init__(
        self, trunk: nn.Module, head: nn.Sequential, *, head_is_dense: bool = False, gate: Gate = "pooled"
    ) -> None:
        """`head_is_dense`: it was trained on maps (DenseCL), and needs no SpatialAdaptor, whose gate is `gate`."""
        super().__init__()
        self.trunk = trunk.requires_grad_(False)
        self.adaptor = head.requires_grad_(False) if head_is_dense else SpatialAdaptor(head, gate)
        self.eval()

    def train(self, mode: bool = True) -> "Teacher":
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, O, h, w) at stride 32 for a ResNet, 16 for a ViT; normalised as ImageNet's images are."""
        maps: Tensor = self.adaptor(self.trunk(images))
        return maps


def load_teacher(name: str, path: Path, *, keep_last_norm: bool = False, gate: Gate = "pooled") -> Teacher:
    """Load the file at `path` as the registry's teacher `name`: *.safetensors is our conversion, else the publisher's.

    Args:
        keep_last_norm: keep the BatchNorm without affine that ends the head, or that stands behind it in the loss
            (Barlow Twins); the released code drops it.
        gate: what gates the head's activations, see SpatialAdaptor.

    Raises:
        PCDError: unknown name, an unreadable or unsafe file, a missing or an extra tensor, or a wrong shape.
    """
    if name not in TEACHERS:
        raise unknown_name("teacher", name, TEACHERS)
    return load_entry(TEACHERS[name], path, keep_last_norm=keep_last_norm, gate=gate)


def load_entry(entry: TeacherEntry, path: Path, *, keep_last_norm: bool = False, gate: Gate = "pooled") -> Teacher:
    tensors = (read_converted if path.suffix == ".safetensors" else read_published)(entry, path)
    trunk, head = build_networks(entry)
    for part, network in (("trunk.", trunk), ("head.", head)):
        state = {name.removeprefix(part): tensor for name, tensor in tensors.items() if name.startswith(part)}
        network.to_empty(device="cpu").load_state_dict(state, strict=True)
    if entry.head.last_norm != "none" and not keep_last_norm:
        head = head[:-1]
    return Teacher(trunk, head, head_is_dense=entry.head.dense, gate=gate)
