"""Which teacher pixels the student's pixels meet, and the loss of the two directions."""

from collections.abc import Callable

import torch
from torch import Tensor

from pcd.alignment import Geometry, align
from pcd.loss import pixel_contrastive_loss
from pcd.settings import LossSettings

__all__ = ["paired_loss"]


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
    """The mean of the two directions' mean losses over pixels.

    `aligned` counts the pixels that lie in both crops, of all ranks' images: each rank's mean is weighted by its share
    of them, so that the mean over ranks, of losses as of DDP's gradients, is the whole batch's. Pixels of one batch
    count alike, however many of its image's overlap. A direction without any such pixel has loss 0.

    Args:
        student1, student2: (B, C, H, W), the student's maps of the two views.
        teacher1, teacher2: (B, C, H, W), the teacher's; for `aligned` its grid may differ from the student's.
        geometry1, geometry2: the views' crops; only `aligned` reads them.
        negatives: (K, C).
        total_over_ranks: the sum of a tensor over all ranks; None for one rank.

    Returns:
        A scalar.
    """
    directions: list[tuple[Tensor, Tensor, Tensor | None]]
    if settings.pairing == "same":
        directions = [(student1, teacher1, None), (student2, teacher2, None)]
    elif settings.pairing == "crossed":
        directions = [(student1, teacher2, None), (student2, teacher1, None)]
    else:
        grid = (student1.shape[2], student1.shape[3])
        directions = [
            (student1, *align(teacher2, *geometry2, *geometry1, grid)),
            (student2, *align(teacher1, *geometry1, *geometry2, grid)),
        ]
    losses = torch.stack(
        [
            pixel_contrastive_loss(
                student, teacher, negatives, settings.temperature, weights=inside, backend=settings.backend
            )
            for student, teacher, inside in directions
        ]
    )  # (2,)
    if total_over_ranks is not None and settings.pairing == "aligned":
        pixels = torch.stack([inside.sum().float() for _, _, inside in directions if inside is not None])  # (2,)
        *totals, ranks = total_over_ranks(torch.cat([pixels, pixels.new_ones(1)]))  # one message for all three
        losses = losses * pixels * ranks / torch.stack(totals).clamp(min=1)
    return losses.mean()
