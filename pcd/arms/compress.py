"""CompRess (arXiv 2010.14713): the student finds an image as similar to earlier ones as the teacher does.

Each network compares in its own space: with unit vectors s and t of one view, and two queues that hold the same earlier
images, N of the teacher's vectors and M of the student's,

    loss = KL( softmax_k(t.N_k / tau)  ||  softmax_k(s.M_k / tau) )

Vectors are the backbones' pooled features, in front of any head. The student's queue is filled by a copy of the student
that follows it slowly.

Source: UMBCvision/CompRess@b9ec6ea, nn/compress_loss.py (CompReSSMomentum) and train_student.py.
Axes: B images, C and D channels of student and teacher, K vectors of each queue.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from pcd.momentum import MomentumCopy
from pcd.objective import Objective, Outputs, vectors_of
from pcd.queue import NegativeQueue
from pcd.settings import PretrainSettings
from pcd.students import Student
from pcd.teachers.entry import TeacherEntry

__all__ = ["OBJECTIVE", "CompRess", "similarity_divergence"]


def similarity_divergence(
    student: Tensor, teacher: Tensor, student_queue: Tensor, teacher_queue: Tensor, temperature: float
) -> Tensor:
    """Mean over images; the gradient flows to `student` only.

    Args:
        student, teacher: (B, C), (B, D), any length; they are normalised here.
        student_queue, teacher_queue: (K, C), (K, D), unit vectors of the same images in the same places.
    """
    with torch.autocast(student.device.type, enabled=False):
        s, t = F.normalize(student.float(), dim=1), F.normalize(teacher.detach().float(), dim=1)
        theirs = (t @ teacher_queue.T / temperature).log_softmax(dim=1)  # (B, K)
        ours = (s @ student_queue.T / temperature).log_softmax(dim=1)  # (B, K)
        return F.kl_div(ours, theirs, reduction="batchmean", log_target=True)


class CompRess(Objective):
    """The mean over both views, each for itself, or crossed; view 1 joins the queues."""

    sees = "vectors"
    teacher_part = "trunk"
    in_one_space = False
    pairings = ("same", "crossed")

    @classmethod
    def head_widths(cls, entry: TeacherEntry, channels: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return (), ()

    def __init__(
        self, settings: PretrainSettings, entry: TeacherEntry, student: Student, seed: int, steps: int
    ) -> None:
        super().__init__(settings, entry, student, seed, steps)
        self.is_crossed, self.temperature = settings.loss.pairing == "crossed", settings.loss.temperature
        self.student_queue = NegativeQueue(settings.loss.negatives, student.backbone.channels, seed)
        self.teacher_queue = NegativeQueue(settings.loss.negatives, entry.trunk.out_channels, seed)
        self.slow = MomentumCopy(student, settings.options["momentum"])

    def forward(self, outputs: Outputs) -> tuple[Tensor, tuple[Tensor, ...]]:
        student1, student2, teacher1, teacher2 = (vectors_of(maps) for maps in outputs[:4])
        queues = self.student_queue.negatives, self.teacher_queue.negatives
        aims = (teacher2, teacher1) if self.is_crossed else (teacher1, teacher2)
        losses = [
            similarity_divergence(student, aim, *queues, self.temperature)
            for student, aim in zip((student1, student2), aims, strict=True)
        ]
        return (losses[0] + losses[1]) / 2, (vectors_of(self.slow(outputs.view1.images)), teacher1)

    def after_step(self, student: Student, vectors: tuple[Tensor, ...]) -> None:
        for queue, of_queue in zip((self.student_queue, self.teacher_queue), vectors, strict=True):
            queue.enqueue(of_queue)
        self.slow.follow(student)


OBJECTIVE = CompRess
