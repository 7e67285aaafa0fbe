"""One batch through student and teacher to the loss."""

import torch
from torch import Tensor, nn

from pcd.alignment import Geometry
from pcd.grid import fit_grid
from pcd.images import TwoViewBatch
from pcd.objective import Objective, Outputs, View
from pcd.photometric import photometric
from pcd.teachers import Teacher

__all__ = ["training_loss", "views_of"]


def training_loss(
    student: nn.Module, teacher: Teacher, objective: Objective, view1: View, view2: View
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """What `objective` makes of one batch: the loss, a scalar, and the vectors that its `after_step` is to get."""
    student1, student2 = student(view1.images), student(view2.images)  # BatchNorm sees one view at a time
    height, width = student1.shape[2:]
    part = teacher if objective.teacher_part == "head" else teacher.trunk
    with torch.no_grad():
        maps = part(torch.cat([view1.images, view2.images]))
        teacher1, teacher2 = fit_grid(maps, height, width).chunk(2)
    loss: tuple[Tensor, tuple[Tensor, ...]] = objective(Outputs(student1, student2, teacher1, teacher2, view1, view2))
    return loss


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
