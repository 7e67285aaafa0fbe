"""Which teacher pixels the student's pixels meet, and the loss of the two directions."""

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from pcd.alignment import Geometry, align
from pcd.loss import pixel_contrastive_loss
from pcd.settings import LossSettings

__all__ = ["PixelLoss", "paired_loss", "paired_mean"]

PixelLoss = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""Student and teacher (B, C, H, W), and each pixel's share of the mean (B, H, W) or None, to a scalar."""


def paired_loss(
    student1: Tensor,
    student2: Tensor,
    teacher1: Tensor,
    teacher2: Tensor,
    geometry1: Geometry,
    geometry2: Geometry,
    negatives: Tensor,
    settings: LossSettings,
    total_over_ranks: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """The pixel-wise contrastive loss by `paired_mean`, with `negatives` (K, C)."""
    contrast = partial(_contrast, negatives=negatives, settings=settings)
    maps, geometries = (student1, student2, teacher1, teacher2), (geometry1, geometry2)
    return paired_mean(contrast, *maps, *geometries, settings.pairing, total_over_ranks)


def _contrast(
    student: Tensor, teacher: Tensor, weights: Tensor | None, negatives: Tensor, settings: LossSettings
) -> Tensor:
    return pixel_contrastive_loss(
        student, teacher, negatives, settings.temperature, weights=weights, backend=settings.backend
    )


def paired_mean(
    loss_of: PixelLoss,
    student1: Tensor,
    student2: Tensor,
    teacher1: Tensor,
    teacher2: Tensor,
    geometry1: Geometry,
    geometry2: Geometry,
    pairing: Literal["crossed", "same", "aligned"],
    total_over_ranks: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """The mean of the two directions' mean losses over pixels.

    `aligned` counts the pixels that lie in both crops, of all ranks' images: each rank's mean is weighted by its share
    of them, so that the mean over ranks, of losses as of DDP's gradients, is the whole batch's. Pixels of one batch
    count alike, however many of its image's overlap. A direction without any such pixel has loss 0.

    Args:
        student1, student2: (B, C, H, W), the student's maps of the two views.
        teacher1, teacher2: (B, C, H, W), the teacher's; for `aligned` its grid may differ from the student's.
        geometry1, geometry2: the views' crops; only `aligned` reads them.
        total_over_ranks: the sum of a tensor over all ranks; None for one rank.

    Returns:
        A scalar.
    """
    directions: list[tuple[Tensor, Tensor, Tensor | None]]
    if pairing == "same":
        directions = [(student1, teacher1, None), (student2, teacher2, None)]
    elif pairing == "crossed":
        directions = [(student1, teacher2, None), (student2, teacher1, None)]
    else:
        grid = (student1.shape[2], student1.shape[3])
        directions = [
            (student1, *align(teacher2, *geometry2, *geometry1, grid)),
            (student2, *align(teacher1, *geometry1, *geometry2, grid)),
        ]
    losses = torch.stack([loss_of(student, teacher, inside) for student, teacher, inside in directions])  # (2,)
    if total_over_ranks is not None and pairing == "aligned":
        pixels = torch.stack([inside.sum().float() for _, _, inside in directions if inside is not None])  # (2,)
        *totals, ranks = total_over_ranks(torch.cat([pixels, pixels.new_ones(1)]))  # one message for all three
        losses = losses * pixels * ranks / torch.stack(totals).clamp(min=1)
    return losses.mean()
