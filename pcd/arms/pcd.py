"""Pixel-Wise Contrastive Distillation (arXiv 2211.00218): each student pixel finds its teacher pixel in a queue."""

import torch
from torch import Tensor

from pcd.distributed import sum_over_ranks
from pcd.loss_backends import Choice, choose_backend
from pcd.objective import Objective, Outputs, vectors_of
from pcd.pairing import paired_loss
from pcd.queue import NegativeQueue
from pcd.settings import PretrainSettings
from pcd.students import Student
from pcd.teachers.entry import TeacherEntry

__all__ = ["OBJECTIVE", "PixelContrast"]


class PixelContrast(Objective):
    """The mean of the two directions' losses (pcd.loss, pcd.pairing); the teacher's pooled view 1 joins the queue."""

    def __init__(
        self, settings: PretrainSettings, entry: TeacherEntry, student: Student, seed: int, steps: int
    ) -> None:
        super().__init__(settings, entry, student, seed, steps)
        self.settings = settings.loss
        self.queue = NegativeQueue(settings.loss.negatives, entry.head.widths[-1], seed)

    def forward(self, outputs: Outputs) -> tuple[Tensor, tuple[Tensor, ...]]:
        maps, geometries = outputs[:4], (outputs.view1.geometry, outputs.view2.geometry)
        loss = paired_loss(*maps, *geometries, self.queue.negatives, self.settings, sum_over_ranks)
        return loss, (vectors_of(outputs.teacher1),)

    def after_step(self, student: Student, vectors: tuple[Tensor, ...]) -> None:
        self.queue.enqueue(*vectors)

    def choice(self, device: torch.device, dtype: torch.dtype) -> Choice:
        return choose_backend(device, dtype, self.queue.negatives.shape[1], self.settings.backend)


OBJECTIVE = PixelContrast
