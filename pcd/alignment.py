"""Resampling one view's map to another view's pixels, through the two crops' geometry.

A crop is a box of the image, (top, left, height, width) in shares of the image's sides, shown from left to right or
mirrored. A pixel of a map stands for the centre of its cell: of W columns, column j lies at (j + 0.5) / W of the crop.
"""

from typing import Final, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Geometry", "align"]


_SLACK: Final = 1e-5
"""Shares of a crop's side by which rounding may carry a centre on its border outside."""


class Geometry(NamedTuple):
    """Where B crops lie in their images."""

    boxes: Tensor
    """(B, 4) top, left, height, width in shares of the image's height and width; height and width above 0."""
    flipped: Tensor
    """(B,) bool, mirrored left to right."""


def align(
    teacher_maps: Tensor,
    teacher_boxes: Tensor,
    teacher_flipped: Tensor,
    student_boxes: Tensor,
    student_flipped: Tensor,
    grid: tuple[int, int],
) -> tuple[Tensor, Tensor]:
    """The teacher's map as the student's crop would show it.

    Each centre of the student's pixels is carried to the image and on into the teacher's crop, where the map is read
    bilinearly between the centres of its cells. Within half a cell of the crop's border, where there is no further
    centre to read towards, the outermost cell's value stands (never a mix with zeros).

    Args:
        teacher_maps: (B, C, h, w).
        teacher_boxes, student_boxes: (B, 4), see `Geometry`.
        teacher_flipped, student_flipped: (B,) bool.
        grid: (H, W), rows and columns of the student's map.

    Returns:
        (B, C, H, W) in the maps' type, and (B, H, W) bool: whether a pixel's centre lies in the teacher's crop, its
        border included. Where it does not, the map holds the nearest border value, to be left out.
    """
    y, x = _centres_in_image(student_boxes, student_flipped, grid)  # (B, H), (B, W)
    top, left, height, width = teacher_boxes.float()[:, :, None].unbind(dim=1)  # (B, 1) each
    y, x = (y - top) / height, (x - left) / width
    x = torch.where(teacher_flipped[:, None], 1 - x, x)
    inside_y, inside_x = ((place >= -_SLACK) & (place <= 1 + _SLACK) for place in (y, x))
    # grid_sample without align_corners takes -1 and 1 for the map's outer edges, and (x, y) in this order.
    shape = (len(y), *grid)
    points = torch.stack([(2 * x - 1)[:, None, :].expand(shape), (2 * y - 1)[:, :, None].expand(shape)], dim=-1)
    with torch.autocast(teacher_maps.device.type, enabled=False):
        sampled = F.grid_sample(teacher_maps.float(), points, padding_mode="border", align_corners=False)
    return sampled.to(teacher_maps.dtype), inside_y[:, :, None] & inside_x[:, None, :]


def _centres_in_image(boxes: Tensor, flipped: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    top, left, height, width = boxes.float()[:, :, None].unbind(dim=1)  # (B, 1) each
    rows, columns = ((torch.arange(n, device=boxes.device) + 0.5) / n for n in grid)  # (H,), (W,)
    across = torch.where(flipped[:, None], 1 - columns, columns)  # (B, W)
    return top + rows * height, left + across * width
