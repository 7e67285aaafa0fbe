"""Squared error between feature maps (FitNets, arXiv 1412.6550, equation 3), in front of any head.

A 1x1 convolution r carries the student's last map to the teacher's channels:  loss = mean of (r(s) - t)^2 over images,
channels and pixels. The equation's sum and its 1/2 are in the learning rate.
Axes: B images, C channels, H x W pixels.
"""

import torch
from torch import Tensor

from pcd.distributed import sum_over_ranks
from pcd.loss import mean_over_pixels
from pcd.objective import Objective, Outputs
from pcd.pairing import paired_mean
from pcd.settings import PretrainSettings
from pcd.students import Student
from pcd.teachers.entry import TeacherEntry

__all__ = ["OBJECTIVE", "FeatureMse", "feature_squared_error"]


def feature_squared_error(student: Tensor, teacher: Tensor, weights: Tensor | None = None) -> Tensor:
    """Of two maps (B, C, H, W), mean over channels and, by `weights` (B, H, W) if given, over pixels and images.

    The gradient flows to `student` only. If all weights are 0, so is the loss.
    """
    with torch.autocast(student.device.type, enabled=False):
        errors = (student.float() - teacher.detach().float()).square().mean(dim=1)  # (B, H, W)
        return mean_over_pixels(errors.flatten(), weights)


class FeatureMse(Objective):
    """Both directions, paired as the settings say; it remembers nothing."""

    teacher_part = "trunk"

    @classmethod
    def head_widths(cls, entry: TeacherEntry, channels: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return (channels, entry.trunk.out_channels), ()

    def __init__(
        self, settings: PretrainSettings, entry: TeacherEntry, student: Student, seed: int, steps: int
    ) -> None:
        super().__init__(settings, entry, student, seed, steps)
        self.pairing = settings.loss.pairing

    def forward(self, outputs: Outputs) -> tuple[Tensor, tuple[Tensor, ...]]:
        maps, geometries = outputs[:4], (outputs.view1.geometry, outputs.view2.geometry)
        return paired_mean(feature_squared_error, *maps, *geometries, self.pairing, sum_over_ranks), ()


OBJECTIVE = FeatureMse
