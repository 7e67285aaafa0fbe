"""Teacher and student maps on one grid."""

import torch.nn.functional as F
from torch import Tensor

from pcd.errors import PCDError

__all__ = ["fit_grid"]


def fit_grid(teacher_maps: Tensor, height: int, width: int) -> Tensor:
    """Average-pool a teacher's map to the student's grid: (B, C, H, W) -> (B, C, height, width).

    A ViT's 14 x 14 tokens become 7 x 7 (allo-rene/pcd@6b0ad4d: pcd/teacher_model/mocov3_vit.py). Every pixel counts
    once, so the map's mean stays what the teacher's head says.

    Raises:
        PCDError: the teacher's grid is no whole multiple of the student's.
    """
    h, w = teacher_maps.shape[2:]
    if h % height or w % width:
        raise PCDError(
            f"the teacher's map of {h} x {w} does not divide into the student's {height} x {width}; choose a view size "
            "that is a multiple of both strides"
        )
    if (h, w) == (height, width):
        return teacher_maps
    return F.avg_pool2d(teacher_maps, kernel_size=(h // height, w // width))
