"""PCD without negatives: each student pixel is drawn to its teacher pixel, and away from nothing.

With unit pixels s and t:  loss = |s - t|^2 = 2 - 2 s.t, BYOL's (arXiv 2006.07733, equation 2) of each pixel. The
teacher is frozen, so that nothing can collapse. Heads, self-attention and pairing are PCD's.
Axes: B images, C channels, H x W pixels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from pcd.distributed import sum_over_ranks
from pcd.loss import mean_over_pixels
from pcd.objective import Objective, Outputs
from pcd.pairing import paired_mean
from pcd.settings import PretrainSettings
from pcd.students import Student
from pcd.teachers.entry import TeacherEntry

__all__ = ["OBJECTIVE", "PixelRegression", "pixel_squared_error"]


def pixel_squared_error(student: Tensor, teacher: Tensor, weights: Tensor | None = None) -> Tensor:
    """Of two maps (B, C, H, W), any length of vectors; mean over pixels and images, by `weights` (B, H, W) if given.

    The gradient flows to `student` only. If all weights are 0, so is the loss.
    """
    with torch.autocast(student.device.type, enabled=False):
        errors = 2 - 2 * F.cosine_similarity(student.float(), teacher.detach().float(), dim=1)  # (B, H, W)
        return mean_over_pixels(errors.flatten(), weights)


class PixelRegression(Objective):
    """Both directions, paired as the settings say; it remembers nothing."""

    def __init__(
        self, settings: PretrainSettings, entry: TeacherEntry, student: Student, seed: int, steps: int
    ) -> None:
        super().__init__(settings, entry, student, seed, steps)
        self.pairing = settings.loss.pairing

    def forward(self, outputs: Outputs) -> tuple[Tensor, tuple[Tensor, ...]]:
        maps, geometries = outputs[:4], (outputs.view1.geometry, outputs.view2.geometry)
        return paired_mean(pixel_squared_error, *maps, *geometries, self.pairing, sum_over_ranks), ()


OBJECTIVE = PixelRegression
