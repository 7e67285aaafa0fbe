"""The two networks of a pre-training run, and the proof that what is held against each other can be."""

import json
from pathlib import Path

import torch
from torch import nn
from torch.fx.experimental.optimization import fuse

from pcd.errors import PCDError
from pcd.grid import fit_grid
from pcd.objective import Objective, load_objective
from pcd.settings import PretrainSettings
from pcd.students import Student, build_student
from pcd.teachers import TEACHERS, Teacher, load_teacher

__all__ = ["build_pair", "hasten"]


def build_pair(folder: Path, name: str, settings: PretrainSettings, seed: int) -> tuple[Teacher, Student]:
    """Both on the CPU, in fp32.

    Args:
        folder: what the teacher stage left.
        name: the teacher's in the registry.

    Raises:
        PCDError: the teacher's map cannot be brought to the student's grid, or the attention does not fit the student.
    """
    file = folder / json.loads((folder / "result.json").read_text())["file"]
    teacher = load_teacher(name, file, keep_last_norm=settings.adaptor_keeps_last_norm, gate=settings.adaptor_gate)
    objective = load_objective(settings.objective)
    torch.manual_seed(seed)  # the student's start is the seed's on every rank
    backbone, entry = build_student(settings.student), TEACHERS[name]
    attention_heads = settings.attention_heads if settings.attention else None
    widths = objective.head_widths(entry, backbone.channels)
    try:
        student = Student(backbone, *widths, attention_heads, pooled=objective.sees == "vectors")
    except ValueError as error:
        raise PCDError(f"pretrain.attention_heads: {error}") from None
    _check_that_maps_meet(student, teacher, objective, settings.views.size)
    return teacher, student


@torch.no_grad()
def _check_that_maps_meet(student: Student, teacher: Teacher, objective: type[Objective], size: int) -> None:
    image = torch.zeros(1, 3, size, size)
    maps = student.eval()(image)
    seen = teacher(image) if objective.teacher_part == "head" else teacher.trunk(image)
    aims = fit_grid(seen, *maps.shape[2:])
    if objective.in_one_space and maps.shape != aims.shape:
        raise PCDError(f"the student's map {tuple(maps.shape)} does not fit the teacher's {tuple(aims.shape)}")


def hasten(teacher: Teacher, half: torch.dtype | None) -> Teacher:
    """Fold the trunk's BatchNorms into its convolutions, and keep these in the type that they are computed in.

    What the teacher says stays the same to rounding; the adaptor, whose identity is exact, is left as it is.
    """
    if any(isinstance(module, nn.BatchNorm2d) for module in teacher.trunk.modules()):
        teacher.trunk = fuse(teacher.trunk)
        if half is not None:
            teacher.trunk.to(half)
    return teacher
