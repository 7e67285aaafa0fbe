"""DisCo (arXiv 2104.09124): MoCo v2 on the student, and its vectors drawn to the teacher's.

With unit vectors q1, q2 of the student and t1, t2 of the teacher for both views, k2 of a copy that follows the student
slowly, and a queue of earlier k2:

    loss = -log softmax([q1.k2, q1.n_1 … q1.n_K] / tau)_0  +  w ( |q1 - t1|^2 + |q2 - t2|^2 )

Source: Yuting-Gao/DisCo-pytorch@35da4b3, DisCo/main.py and DisCo/moco/builder_kq_mse_largeembedding_2048.py, which sums
the squared distances over the images of one GPU beside the mean of the contrast: hence the weight w on their mean.
Axes: B images, C channels, K vectors of the queue.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from pcd.loss import pixel_contrastive_loss
from pcd.loss_backends import Choice, choose_backend
from pcd.momentum import MomentumCopy
from pcd.objective import Objective, Outputs, vectors_of
from pcd.queue import NegativeQueue
from pcd.settings import PretrainSettings
from pcd.students import Student
from pcd.teachers.entry import TeacherEntry

__all__ = ["OBJECTIVE", "DisCo", "squared_distance"]


def squared_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """|s - t|^2 of unit vectors, (B, C) each, normalised here; mean over images, gradient to `student` only."""
    s, t = F.normalize(student.float(), dim=1), F.normalize(teacher.detach().float(), dim=1)
    return (s - t).square().sum(dim=1).mean()


class DisCo(Objective):
    """The slow copy's view 2 joins the queue."""

    sees = "vectors"
    pairings = ("same",)

    @classmethod
    def head_widths(cls, entry: TeacherEntry, channels: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return entry.projector_widths(channels), ()

    def __init__(
        self, settings: PretrainSettings, entry: TeacherEntry, student: Student, seed: int, steps: int
    ) -> None:
        super().__init__(settings, entry, student, seed, steps)
        self.settings, self.weight = settings.loss, settings.options["distillation_weight"]
        self.queue = NegativeQueue(settings.loss.negatives, entry.head.widths[-1], seed)
        self.slow = MomentumCopy(student, settings.options["momentum"])

    def forward(self, outputs: Outputs) -> tuple[Tensor, tuple[Tensor, ...]]:
        student1, student2, teacher1, teacher2 = (vectors_of(maps) for maps in outputs[:4])
        keys = self.slow(outputs.view2.images)  # (B, C, 1, 1)
        contrast = pixel_contrastive_loss(
            outputs.student1, keys, self.queue.negatives, self.settings.temperature, backend=self.settings.backend
        )
        distances = squared_distance(student1, teacher1) + squared_distance(student2, teacher2)
        return contrast + self.weight * distances, (vectors_of(keys),)

    def after_step(self, student: Student, vectors: tuple[Tensor, ...]) -> None:
        self.queue.enqueue(*vectors)
        self.slow.follow(student)

    def choice(self, device: torch.device, dtype: torch.dtype) -> Choice:
        return choose_backend(device, dtype, self.queue.negatives.shape[1], self.settings.backend)


OBJECTIVE = DisCo
