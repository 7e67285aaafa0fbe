"""A whole training step and its parts, against a straightforward implementation of the released recipe.

ResNet-18 from MoCo v3's ResNet-50 (random weights: speed does not depend on them), 224 pixels, 65,536 negatives, LARS.
The baseline does what the recipe says in the plainest way: Pillow views one by one, fp32, the teacher as it is, all
logits of the loss at once, an optimizer that goes parameter by parameter. Images are loaded in the training process on
both sides.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from timm.optim.lars import Lars
from torch import Tensor, nn
from torch.utils.data import default_collate

from pcd.arms.pcd import PixelContrast
from pcd.bench.harness import Row, Skipped, Work, compare_times
from pcd.bench.jpegs import write_jpegs
from pcd.bench.pil_views import PilTwoViews
from pcd.heads import build_vector_head
from pcd.image_sources import open_images
from pcd.images import TwoViewBatch, TwoViewImages
from pcd.loss import pixel_contrastive_loss, reference_pixel_contrastive_loss
from pcd.networks import hasten
from pcd.objective import View
from pcd.optim import build_optimizer
from pcd.precision import autocast_type
from pcd.queue import NegativeQueue
from pcd.settings import OptimizerSettings, PretrainSettings, ViewSettings
from pcd.students import Student, build_student
from pcd.teachers import TEACHERS, Teacher
from pcd.teachers.trunks import build_trunk
from pcd.training_loss import training_loss, views_of

__all__ = ["step_suite"]

_BATCH = 16
_SETTINGS = PretrainSettings()


@dataclass(slots=True)
class _Side:
    """What one of the two ways of training has built."""

    teacher: Teacher
    student: Student
    optimizer: torch.optim.Optimizer
    objective: PixelContrast


def step_suite(device: torch.device) -> Iterator[Row | Skipped]:
    half = autocast_type("auto", device)
    with tempfile.TemporaryDirectory() as folder:
        paths = write_jpegs(Path(folder), _BATCH)
        images = TwoViewImages(open_images(Path(folder)), ViewSettings(), seed=0)
        pil = PilTwoViews(ViewSettings())
        ours, plain = _our_side(device, half), _plain_side(device)

        def load() -> TwoViewBatch:
            batch: TwoViewBatch = default_collate([images[0, i] for i in range(_BATCH)])
            return batch

        def load_plainly() -> tuple[Tensor, Tensor]:
            views = [pil(Image.open(path).convert("RGB")) for path in paths]
            first, second = zip(*views, strict=True)
            return torch.stack(first).to(device), torch.stack(second).to(device)

        views, plain_views = views_of(load(), device), load_plainly()
        maps = torch.randn(2, _BATCH, 256, 7, 7, device=device)
        dtype = half or torch.float32
        note = f"{_BATCH} images, {str(dtype).removeprefix('torch.')} against float32"
        pairs: dict[str, tuple[Work, Work]] = {
            "step": (lambda: _our_step(ours, load(), device, half), lambda: _plain_step(plain, load_plainly())),
            "data": (lambda: views_of(load(), device), load_plainly),
            "teacher": (lambda: _our_teaching(ours, views, half), lambda: _plain_teaching(plain, plain_views)),
            "student": (lambda: _our_study(ours, views, half), lambda: _plain_study(plain, plain_views)),
            "loss": (
                lambda: _contrast(pixel_contrastive_loss, maps.to(dtype), ours.objective.queue),
                lambda: _contrast(reference_pixel_contrastive_loss, maps, plain.objective.queue),
            ),
            "optimizer": (ours.optimizer.step, plain.optimizer.step),
        }
        for name, (ours_does, plain_does) in pairs.items():
            title = "training step, whole" if name == "step" else f"step: {name}"
            yield compare_times(title, ours_does, plain_does, device, repeats=5, note=note if name == "step" else "")


def _build(channels_last: bool, device: torch.device) -> tuple[Teacher, Student]:
    entry = TEACHERS["mocov3_r50_1000"]
    torch.manual_seed(0)
    teacher = Teacher(build_trunk(entry.trunk), build_vector_head(entry.head)[:-1])
    backbone = build_student("resnet18")
    student = Student(backbone, entry.projector_widths(backbone.channels), entry.predictor_widths(), 8)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    for network in (teacher, student):
        network.to(device).to(memory_format=layout)
    return teacher, student.train()


def _our_side(device: torch.device, half: torch.dtype | None) -> _Side:
    teacher, student = _build(True, device)
    hasten(teacher, half).to(memory_format=torch.channels_last)
    return _Side(teacher, student, build_optimizer(student, OptimizerSettings()), _objective(student, device))


def _plain_side(device: torch.device) -> _Side:
    teacher, student = _build(False, device)
    weights = [p for p in student.parameters() if p.ndim > 1]
    others = [p for p in student.parameters() if p.ndim <= 1]
    groups = [{"params": weights, "weight_decay": 1e-5}, {"params": others, "weight_decay": 0.0}]
    return _Side(teacher, student, Lars(groups, lr=0.1, momentum=0.9, foreach=False), _objective(student, device))


def _objective(student: Student, device: torch.device) -> PixelContrast:
    return PixelContrast(_SETTINGS, TEACHERS["mocov3_r50_1000"], student, seed=0, steps=1).to(device)


def _our_step(side: _Side, batch: TwoViewBatch, device: torch.device, half: torch.dtype | None) -> None:
    side.optimizer.zero_grad(set_to_none=True)
    views = views_of(batch, device)
    with torch.autocast(device.type, half, enabled=half is not None):
        loss, pooled = training_loss(side.student, side.teacher, side.objective, *views)
    loss.backward()
    nn.utils.get_total_norm([p.grad for p in side.student.parameters() if p.grad is not None]).item()
    side.optimizer.step()
    side.objective.after_step(side.student, pooled)


def _plain_step(side: _Side, views: tuple[Tensor, Tensor]) -> None:
    side.optimizer.zero_grad(set_to_none=True)
    student1, student2 = (side.student(view) for view in views)
    teacher1, teacher2 = (side.teacher(view) for view in views)
    negatives, temperature = side.objective.queue.negatives, _SETTINGS.loss.temperature
    loss = reference_pixel_contrastive_loss(student1, teacher2, negatives, temperature)
    loss = loss + reference_pixel_contrastive_loss(student2, teacher1, negatives, temperature)
    (loss / 2).backward()
    side.optimizer.step()
    side.objective.queue.enqueue(teacher1.mean(dim=(2, 3)))


def _our_teaching(side: _Side, views: tuple[View, View], half: torch.dtype | None) -> None:
    with torch.autocast(views[0].images.device.type, half, enabled=half is not None):
        side.teacher(torch.cat([view.images for view in views]))


def _plain_teaching(side: _Side, views: tuple[Tensor, Tensor]) -> None:
    for view in views:
        side.teacher(view)


def _our_study(side: _Side, views: tuple[View, View], half: torch.dtype | None) -> None:
    with torch.autocast(views[0].images.device.type, half, enabled=half is not None):
        maps = [side.student(view.images) for view in views]
    torch.stack(maps).float().sum().backward()


def _plain_study(side: _Side, views: tuple[Tensor, Tensor]) -> None:
    torch.stack([side.student(view) for view in views]).sum().backward()


def _contrast(loss: object, maps: Tensor, queue: NegativeQueue) -> None:
    assert callable(loss)
    for student, teacher in (maps, maps.flip(0)):
        loss(student.detach().requires_grad_(), teacher, queue.negatives, _SETTINGS.loss.temperature).backward()
