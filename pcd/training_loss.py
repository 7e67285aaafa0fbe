"""One batch through student and teacher to the loss."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from pcd.alignment import Geometry
from pcd.distributed import sum_over_ranks
from pcd.grid import fit_grid
from pcd.images import TwoViewBatch
from pcd.pairing import paired_loss
from pcd.photometric import photometric
from pcd.settings import LossSettings
from pcd.teachers import Teacher

__all__ = ["View", "training_loss", "views_of"]


class View(NamedTuple):
    """One random view of each image of a batch."""

    images: Tensor
    """(B, 3, size, size), normalised."""
    geometry: Geometry
    """Where in their images the crops lie."""


def training_loss(
    student: nn.Module, teacher: Teacher, negatives: Tensor, view1: View, view2: View, settings: LossSettings
) -> tuple[Tensor, Tensor]:
    """The loss of one batch, mean of the two directions, and the vectors that join the queue.

    Args:
        negatives: (K, O).

    Returns:
        A scalar, and the teacher's output on view 1, pooled over the grid: (B, O).
    """
    student1, student2 = student(view1.images), student(view2.images)  # BatchNorm sees one view at a time
    height, width = student1.shape[2:]
    with torch.no_grad():
        maps = teacher(torch.cat([view1.images, view2.images]))
        teacher1, teacher2 = fit_grid(maps, height, width).chunk(2)
        pooled = teacher1.float().mean(dim=(2, 3))  # (B, O)
    loss = paired_loss(
        student1, student2, teacher1, teacher2, view1.geometry, view2.geometry, negatives, settings, sum_over_ranks
    )
    return loss, pooled


def views_of(batch: TwoViewBatch, device: torch.device) -> tuple[View, View]:
    """A batch's two views on the device, their colours changed there."""
    view1, view2 = (
        View(
            photometric(crops.pixels, crops.photometric).contiguous(memory_format=torch.channels_last),
            Geometry(crops.boxes, crops.flipped),
        )
        for crops in batch.to(device)[:2]
    )
    return view1, view2
