"""BINGO (arXiv 2107.01691): the student is drawn to the teacher's vector of its image and to those of related images.

With l(s, p) = -log softmax([s.p, s.n_1 … s.n_K] / tau)_0 over a queue of teacher vectors n, the teacher's vector t of
the other view, and the bag of the m vectors of the queue that are nearest to t:

    loss = own l(s, t) + (1 - own) mean over the bag of l(s, b)

The first share of the training, and until the queue holds a whole bag of images, has own = 1.

Source: haohang96/bingo@fd6df8e, moco/builder.py and main_moco.py. Not as there: bags come from the queue, where the
released code finds them once for the whole pool and shows the student those images too, with a term for each of their
views and one for their mixture by CutMix; here are the code's two terms for the image's own view, and no others.
Axes: B images, C channels, K vectors of the queue, M of a bag.
"""

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from pcd.loss import pixel_contrastive_loss
from pcd.loss_backends import Choice, choose_backend
from pcd.objective import Objective, Outputs, vectors_of
from pcd.queue import NegativeQueue
from pcd.settings import PretrainSettings
from pcd.students import Student
from pcd.teachers.entry import TeacherEntry

__all__ = ["OBJECTIVE", "Bingo", "nearest_in_queue"]

_COUNTS: Final = ("own_only_steps", "steps_done", "vectors_seen")


@torch.no_grad()
def nearest_in_queue(vectors: Tensor, queue: Tensor, size: int) -> Tensor:
    """The `size` rows of `queue` (K, C), unit vectors, that are most similar to each of `vectors` (B, C): (B, M, C)."""
    with torch.autocast(queue.device.type, enabled=False):
        similarities = F.normalize(vectors.float(), dim=1) @ queue.T  # (B, K)
    return queue[similarities.topk(size, dim=1).indices]


class Bingo(Objective):
    """The mean of the two directions, crossed or each view for itself; the teacher's view 1 joins the queue."""

    sees = "vectors"
    pairings = ("crossed", "same")

    @classmethod
    def head_widths(cls, entry: TeacherEntry, channels: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return entry.projector_widths(channels), ()

    def __init__(
        self, settings: PretrainSettings, entry: TeacherEntry, student: Student, seed: int, steps: int
    ) -> None:
        super().__init__(settings, entry, student, seed, steps)
        self.settings = settings.loss
        self.own_weight, self.bag_size = settings.options["own_weight"], int(settings.options["bag_size"])
        self.queue = NegativeQueue(settings.loss.negatives, entry.head.widths[-1], seed)
        self.own_only_steps = round(settings.options["own_only"] * steps)
        self.steps_done = self.vectors_seen = 0

    def forward(self, outputs: Outputs) -> tuple[Tensor, tuple[Tensor, ...]]:
        students, teachers = outputs[:2], outputs[2:4]
        aims = teachers[::-1] if self.settings.pairing == "crossed" else teachers
        losses = [self._direction(student, aim) for student, aim in zip(students, aims, strict=True)]
        return (losses[0] + losses[1]) / 2, (vectors_of(outputs.teacher1),)

    def _direction(self, student: Tensor, teacher: Tensor) -> Tensor:
        own = self._contrast(student, teacher)
        filled = self._filled_part_of_the_queue()
        if self.steps_done < self.own_only_steps or len(filled) < self.bag_size:
            return own
        bags = nearest_in_queue(vectors_of(teacher), filled, self.bag_size)  # (B, M, C)
        related = bags.transpose(1, 2)[:, :, None]  # (B, C, 1, M): a bag stands where a map's pixels do
        return self.own_weight * own + (1 - self.own_weight) * self._contrast(student.expand_as(related), related)

    def _contrast(self, student: Tensor, positive: Tensor) -> Tensor:
        settings, negatives = self.settings, self.queue.negatives
        return pixel_contrastive_loss(student, positive, negatives, settings.temperature, backend=settings.backend)

    def _filled_part_of_the_queue(self) -> Tensor:
        """It starts as random vectors, which are nobody's relatives, and is filled from the front."""
        return self.queue.negatives[: self.vectors_seen]

    def after_step(self, student: Student, vectors: tuple[Tensor, ...]) -> None:
        (entering,) = vectors
        self.queue.enqueue(entering)
        self.steps_done += 1
        self.vectors_seen += len(entering)

    def get_extra_state(self) -> dict[str, int]:
        """Plain numbers that are read at every step: on the device each look would wait for it."""
        return {name: getattr(self, name) for name in _COUNTS}

    def set_extra_state(self, state: dict[str, int]) -> None:
        for name in _COUNTS:
            setattr(self, name, state[name])

    def choice(self, device: torch.device, dtype: torch.dtype) -> Choice:
        return choose_backend(device, dtype, self.queue.negatives.shape[1], self.settings.backend)


OBJECTIVE = Bingo
