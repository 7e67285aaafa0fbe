"""SEED (arXiv 2101.04731): the student imitates how similar the teacher finds an image to a queue of others.

With unit vectors s of the student and t of the teacher for one view, and the queue Q = [t, n_1 … n_K], the view's own
teacher vector in front of earlier ones:

    loss = - sum_k softmax_k(t.Q_k / tau_teacher) log softmax_k(s.Q_k / tau)

Source: jacobswan1/SEED@81ff933, seed/builder.py and tools/utils.py (soft_cross_entropy).
Axes: B images, C channels, K vectors of the queue.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from pcd.objective import Objective, Outputs, vectors_of
from pcd.queue import NegativeQueue
from pcd.settings import PretrainSettings
from pcd.students import Student
from pcd.teachers.entry import TeacherEntry

__all__ = ["OBJECTIVE", "Seed", "similarity_distillation_loss"]


def similarity_distillation_loss(
    student: Tensor, teacher: Tensor, queue: Tensor, temperature: float, teacher_temperature: float
) -> Tensor:
    """Mean over images; the gradient flows to `student` only.

    Args:
        student, teacher: (B, C), any length; they are normalised here.
        queue: (K, C), unit vectors.
    """
    with torch.autocast(student.device.type, enabled=False):  # the teacher's temperature leaves no digit to lose
        s, t = F.normalize(student.float(), dim=1), F.normalize(teacher.detach().float(), dim=1)
        own_s, own_t = (s * t).sum(dim=1, keepdim=True), (t * t).sum(dim=1, keepdim=True)  # (B, 1)
        logits = torch.cat([own_s, s @ queue.T], dim=1) / temperature  # (B, K + 1)
        targets = (torch.cat([own_t, t @ queue.T], dim=1) / teacher_temperature).softmax(dim=1)  # (B, K + 1)
        return F.cross_entropy(logits, targets)


class Seed(Objective):
    """The mean over both views, each for itself, or crossed; the teacher's view 1 joins the queue."""

    sees = "vectors"
    pairings = ("same", "crossed")

    @classmethod
    def head_widths(cls, entry: TeacherEntry, channels: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return entry.projector_widths(channels), ()

    def __init__(
        self, settings: PretrainSettings, entry: TeacherEntry, student: Student, seed: int, steps: int
    ) -> None:
        super().__init__(settings, entry, student, seed, steps)
        self.is_crossed = settings.loss.pairing == "crossed"
        self.temperatures = settings.loss.temperature, settings.options["teacher_temperature"]
        self.queue = NegativeQueue(settings.loss.negatives, entry.head.widths[-1], seed)

    def forward(self, outputs: Outputs) -> tuple[Tensor, tuple[Tensor, ...]]:
        student1, student2, teacher1, teacher2 = (vectors_of(maps) for maps in outputs[:4])
        aims = (teacher2, teacher1) if self.is_crossed else (teacher1, teacher2)
        losses = [
            similarity_distillation_loss(student, aim, self.queue.negatives, *self.temperatures)
            for student, aim in zip((student1, student2), aims, strict=True)
        ]
        return (losses[0] + losses[1]) / 2, (teacher1,)

    def after_step(self, student: Student, vectors: tuple[Tensor, ...]) -> None:
        self.queue.enqueue(*vectors)


OBJECTIVE = Seed
