"""The first-in first-out queue of negatives."""

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["NegativeQueue", "filling_warning"]

_FILLING_SHARE: Final = 0.25
"""Of a training's steps; the paper's schedules take less than a thousandth."""


class NegativeQueue(nn.Module):
    """K unit vectors of teacher outputs, the oldest overwritten first (allo-rene/pcd@6b0ad4d starts it at random).

    It lives outside the module that DDP wraps: as a buffer of that one it would be broadcast at every forward pass
    (2.1 GB for 8192 channels). Every rank enqueues the same gathered vectors, so the copies stay equal by themselves.
    """

    negatives: Tensor
    pointer: Tensor

    def __init__(self, length: int, channels: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        start = torch.randn(length, channels, generator=generator)
        self.register_buffer("negatives", F.normalize(start, dim=1))  # (K, C)
        self.register_buffer("pointer", torch.zeros((), dtype=torch.long))  # the oldest vector's place

    def __len__(self) -> int:
        return len(self.negatives)

    @torch.no_grad()
    def enqueue(self, vectors: Tensor) -> None:
        """Take in (N, C) vectors in their order, any N; they are normalised here. Of more than K the last K stay."""
        length = len(self)
        places = (self.pointer + torch.arange(len(vectors), device=vectors.device)) % length
        newest = F.normalize(vectors[-length:].float(), dim=1)
        self.negatives[places[-length:]] = newest
        self.pointer.copy_((self.pointer + len(vectors)) % length)


def filling_warning(objective: nn.Module, batch: int, steps: int) -> str | None:
    """A line where an objective's queue is partly random for much of the training, which is then hardly contrastive.

    Args:
        batch: vectors that a step enqueues.
    """
    length = max((len(module) for module in objective.modules() if isinstance(module, NegativeQueue)), default=0)
    filled = -(-length // batch)
    if filled <= _FILLING_SHARE * steps:
        return None
    return (
        f"the queue of {length} negatives is full of the teacher's outputs only after {filled} steps of {steps}; until "
        "then random vectors stand in it. Lower loss.negatives, or train longer"
    )
