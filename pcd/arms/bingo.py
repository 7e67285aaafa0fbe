"""BINGO (arXiv 2107.01691): the student is drawn to the teacher's vector of its image and to those of related images.

With l(s, p) = -log softmax([s.p, s.n_1 … s.n_K] / tau)_0 over a queue of teacher vectors n, the teacher's vector t of
the other view, and the bag of the m vectors of the queue that are nearest to t:

    loss = own l(s, t) + (1 - own) mean over the bag of l(s, b), the latter without the bag among its negatives

The first share of the training, and until the queue holds a whole bag of images, has own = 1.

Source: haohang96/bingo@fd6df8e, moco/builder.py and main_moco.py. Not as there: bags come from the queue, where the
released code finds them once for the whole pool and shows the student those images too, with a term for each of their
views and one for their mixture by CutMix; here are the code's two terms for the image's own view, and no others. There
a related image's vector is made anew and is none of the queue; here it is a row of it, so the bag is left out of the
negatives: each of it would be its own negative, and that term could not fall below log 2.
Axes: B images, C channels, K vectors of the queue, M of a bag.
"""

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from pcd.errors import PCDError
from pcd.loss import pixel_contrastive_loss
from pcd.loss_backends import Choice, choose_backend
from pcd.objective import Objective, Outputs, vectors_of
from pcd.queue import NegativeQueue
from pcd.settings import PretrainSettings
from pcd.students import Student
from pcd.teachers.entry import TeacherEntry

__all__ = ["OBJECTIVE", "Bingo", "contrast_with_bags", "nearest_in_queue"]

_COUNTS: Final = ("own_only_steps", "steps_done", "vectors_seen")


@torch.no_grad()
def nearest_in_queue(vectors: Tensor, queue: Tensor, size: int) -> Tensor:
    """(B, M) places in `queue` (K, C), unit vectors, of the `size` most similar to each of `vectors` (B, C)."""
    with torch.autocast(queue.device.type, enabled=False):
        return (F.normalize(vectors.float(), dim=1) @ queue.T).topk(size, dim=1).indices


def contrast_with_bags(student: Tensor, queue: Tensor, bags: Tensor, temperature: float) -> Tensor:
    """The mean of l(s, b) over images and bags, against those rows of the queue that are not in the image's bag.

    Args:
        student: (B, C).
        queue: (K, C), unit vectors; K > M.
        bags: (B, M), places in the queue.
    """
    with torch.autocast(queue.device.type, enabled=False):
        logits = F.normalize(student.float(), dim=1) @ queue.T / temperature  # (B, K)
        others = logits.scatter(1, bags, -torch.inf).logsumexp(dim=1, keepdim=True)  # (B, 1)
        related = logits.gather(1, bags)  # (B, M)
        return (torch.logaddexp(related, others) - related).mean()


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
        if self.bag_size >= settings.loss.negatives:
            raise PCDError(
                f"a bag of {self.bag_size} leaves no negatives in a queue of {settings.loss.negatives}; raise "
                "loss.negatives"
            )
        self.queue = NegativeQueue(settings.loss.negatives, entry.head.widths[-1], seed)
        self.own_only_steps = round(settings.options["own_only"] * steps)
        self.steps_done = self.vectors_seen = 0

    def forward(self, outputs: Outputs) -> tuple[Tensor, tuple[Tensor, ...]]:
        students, teachers = outputs[:2], outputs[2:4]
        aims = teachers[::-1] if self.settings.pairing == "crossed" else teachers
        losses = [self._direction(student, aim) for student, aim in zip(students, aims, strict=True)]
        return (losses[0] + losses[1]) / 2, (vectors_of(outputs.teacher1),)

    def _direction(self, student: Tensor, teacher: Tensor) -> Tensor:
        settings, negatives = self.settings, self.queue.negatives
        own = pixel_contrastive_loss(student, teacher, negatives, settings.temperature, backend=settings.backend)
        filled = self._filled_part_of_the_queue()
        if self.steps_done < self.own_only_steps or len(filled) < self.bag_size:
            return own
        bags = nearest_in_queue(vectors_of(teacher), filled, self.bag_size)  # the queue is filled from its front
        related = contrast_with_bags(vectors_of(student), negatives, bags, settings.temperature)
        return self.own_weight * own + (1 - self.own_weight) * related

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
