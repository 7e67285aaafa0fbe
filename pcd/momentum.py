"""A copy of the student that follows it slowly (MoCo, arXiv 1911.05722, equation 2)."""

import copy

import torch
from torch import Tensor, nn

from pcd.students import Student

__all__ = ["MomentumCopy"]


class MomentumCopy(nn.Module):
    """Takes no gradient. Its BatchNorms stay in train mode, as MoCo's keys have theirs; `follow` moves parameters."""

    def __init__(self, student: Student, momentum: float) -> None:
        super().__init__()
        self.network = copy.deepcopy(student).requires_grad_(False).train()
        self.momentum = momentum

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, O, h, w)."""
        maps: Tensor = self.network(images)
        return maps

    @torch.no_grad()
    def follow(self, student: Student) -> None:
        """parameter = momentum * parameter + (1 - momentum) * the student's."""
        slow: list[Tensor] = list(self.network.parameters())
        fast: list[Tensor] = list(student.parameters())
        torch._foreach_lerp_(slow, fast, 1 - self.momentum)
