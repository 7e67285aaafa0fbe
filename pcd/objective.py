"""The contract of what a student can learn by: one loss, and what it remembers from step to step.

Each objective is a module of pcd.arms, found by name when a run begins: a stage's key holds the source of its own
objective alone, so that a new one leaves the stored results of the others good.
"""

from abc import ABC, abstractmethod
from importlib import import_module
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from pcd.alignment import Geometry
from pcd.errors import PCDError
from pcd.loss_backends import Choice
from pcd.settings import PretrainSettings
from pcd.students import Student
from pcd.teachers.entry import TeacherEntry

__all__ = ["Objective", "Outputs", "View", "load_objective", "vectors_of"]


class View(NamedTuple):
    """One random view of each image of a batch."""

    images: Tensor
    """(B, 3, size, size), normalised."""
    geometry: Geometry
    """Where in their images the crops lie."""


class Outputs(NamedTuple):
    """What both networks make of a batch's two views, nothing normalised."""

    student1: Tensor
    student2: Tensor
    """(B, O, H, W); H = W = 1 where the objective sees vectors."""
    teacher1: Tensor
    teacher2: Tensor
    """(B, P, H, W) at the student's grid, without gradient; P = O but where the two are never held against each
    other."""
    view1: View
    view2: View


class Objective(nn.Module, ABC):
    """A loss over `Outputs`. Its state lies in buffers and frozen parameters, and is part of the checkpoint.

    It stands outside the module that DDP wraps: every rank keeps a copy, and all copies see the same.
    """

    sees: ClassVar[Literal["pixels", "vectors"]] = "pixels"
    """`vectors`: the student's map is averaged over its pixels in front of its heads."""
    teacher_part: ClassVar[Literal["head", "trunk"]] = "head"
    """Which of the teacher's outputs it looks at."""
    in_one_space: ClassVar[bool] = True
    """Whether student and teacher are held against each other, so that their channels have to be as many."""
    pairings: ClassVar[tuple[str, ...]] = ("crossed", "same", "aligned")
    """Values of `loss.pairing` that mean something to it."""

    @classmethod
    def head_widths(cls, entry: TeacherEntry, channels: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Of the student's projector and predictor behind a backbone of `channels`; empty: there is none."""
        return entry.projector_widths(channels), entry.predictor_widths()

    def __init__(
        self, settings: PretrainSettings, entry: TeacherEntry, student: Student, seed: int, steps: int
    ) -> None:
        """`student` as it starts, to be copied from; `steps` of the whole run.

        Raises PCDError on settings that mean nothing to this objective.
        """
        super().__init__()
        if settings.loss.pairing not in self.pairings:
            raise PCDError(
                f"the objective {settings.objective} has no pairing {settings.loss.pairing}; set loss.pairing to "
                f"{' or '.join(self.pairings)}"
            )

    @abstractmethod
    def forward(self, outputs: Outputs) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The loss of one batch, a scalar; and vectors, (B, …) each, that `after_step` gets of the whole batch."""

    def after_step(self, student: Student, vectors: tuple[Tensor, ...]) -> None:
        """Once behind each step of the optimizer, on every rank: `vectors` of the global batch, in its order."""

    def choice(self, device: torch.device, dtype: torch.dtype) -> Choice:
        """How it is computed, for the log."""
        return Choice("reference", torch.float32, "as its formula stands")


def load_objective(name: str) -> type[Objective]:
    """The class that the module pcd.arms.`name` calls OBJECTIVE. Which names there are, the settings know."""
    module: Any = import_module(f"pcd.arms.{name}")
    objective: type[Objective] = module.OBJECTIVE
    return objective


def vectors_of(maps: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C), the mean over pixels, fp32."""
    return maps.float().mean(dim=(2, 3))
