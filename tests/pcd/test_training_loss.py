import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pcd.alignment import Geometry
from pcd.arms.pcd import PixelContrast
from pcd.errors import PCDError
from pcd.loss import reference_pixel_contrastive_loss
from pcd.networks import build_pair
from pcd.objective import View
from pcd.optim import build_optimizer
from pcd.queue import NegativeQueue
from pcd.settings import LossSettings, OptimizerSettings, PretrainSettings
from pcd.students import Student, build_student
from pcd.teachers import TEACHERS, Teacher, load_teacher
from pcd.teachers.registry import DEMO_CHECKPOINT
from pcd.training_loss import training_loss

Views = tuple[View, View]


@pytest.fixture
def teacher() -> Teacher:
    return load_teacher("demo", DEMO_CHECKPOINT)


@pytest.fixture
def student() -> Student:
    entry = TEACHERS["demo"]
    return Student(build_student("resnet18"), entry.projector_widths(512), entry.predictor_widths(), attention_heads=8)


@pytest.fixture
def queue() -> NegativeQueue:
    return NegativeQueue(60, TEACHERS["demo"].head.widths[-1], seed=0)


def contrast(queue: NegativeQueue, student: Student, settings: LossSettings | None = None) -> PixelContrast:
    """PCD's objective, with this queue."""
    whole = PretrainSettings(global_batch=4, loss=settings or LossSettings())
    objective = PixelContrast(whole, TEACHERS["demo"], student, seed=0, steps=1)
    objective.queue = queue
    return objective


@pytest.fixture
def views() -> Views:
    """Of the upper and of the lower three quarters of four images."""
    upper, lower = (
        Geometry(torch.tensor([[top, 0, 0.75, 1]] * 4), torch.zeros(4, dtype=torch.bool)) for top in (0, 0.25)
    )
    return View(torch.randn(4, 3, 64, 64), upper), View(torch.randn(4, 3, 64, 64), lower)


@pytest.mark.parametrize("pairing", ["crossed", "same"])
def test_pairing_says_which_views_teacher_map_a_student_map_meets(
    student: Student, teacher: Teacher, queue: NegativeQueue, views: Views, pairing: str
) -> None:
    student.eval()  # so that the student can be asked twice for the same maps
    settings = LossSettings(pairing=pairing)
    loss, _ = training_loss(student, teacher, contrast(queue, student, settings), *views)
    targets = [teacher(view.images) for view in (reversed(views) if pairing == "crossed" else views)]
    expected = [
        reference_pixel_contrastive_loss(student(view.images), target, queue.negatives, 0.2)
        for view, target in zip(views, targets, strict=True)
    ]
    torch.testing.assert_close(loss, (expected[0] + expected[1]) / 2, rtol=1e-4, atol=1e-5)


def test_crossed_and_same_pairing_differ(
    student: Student, teacher: Teacher, queue: NegativeQueue, views: Views
) -> None:
    student.eval()
    crossed, same = (
        training_loss(student, teacher, contrast(queue, student, LossSettings(pairing=pairing)), *views)[0]
        for pairing in ("crossed", "same")
    )
    assert abs(crossed - same) > 1e-4


def test_teachers_pooled_view_1_joins_the_queue(
    student: Student, teacher: Teacher, queue: NegativeQueue, views: Views
) -> None:
    _, (negatives,) = training_loss(student, teacher, contrast(queue, student), *views)
    torch.testing.assert_close(negatives, teacher(views[0].images).mean(dim=(2, 3)), rtol=1e-4, atol=1e-4)


def test_loss_leaves_the_queue_alone(student: Student, teacher: Teacher, queue: NegativeQueue, views: Views) -> None:
    before = queue.negatives.clone()
    training_loss(student, teacher, contrast(queue, student), *views)
    assert torch.equal(queue.negatives, before)


def test_teachers_finer_map_is_pooled_to_the_students_grid(
    student: Student, teacher: Teacher, queue: NegativeQueue, views: Views
) -> None:
    student.eval()

    class Finer(torch.nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return teacher(images).repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)

    losses = [training_loss(student, t, contrast(queue, student), *views)[0] for t in (teacher, Finer())]  # type: ignore[arg-type]
    torch.testing.assert_close(losses[1], losses[0])


def test_networks_whose_maps_do_not_meet_are_the_users_error(teacher_folder: Path) -> None:
    settings = PretrainSettings(student="timm:resnet18", attention_heads=7)
    with pytest.raises(PCDError, match=r"pretrain\.attention_heads"):
        build_pair(teacher_folder, "demo", settings, seed=0)


@pytest.fixture
def before_and_after(
    student: Student, teacher: Teacher, queue: NegativeQueue, views: Views
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """All tensors of both networks around one whole training step, with `train()` called on both."""
    student.train()
    teacher.train()
    both = torch.nn.ModuleDict({"student": student, "teacher": teacher})
    before = copy.deepcopy(both.state_dict())
    optimizer = build_optimizer(student, PretrainSettings().optimizer)
    training_loss(student, teacher, contrast(queue, student), *views)[0].backward()
    optimizer.step()
    return before, both.state_dict()


def test_teacher_is_bit_identical_after_a_step(
    before_and_after: tuple[dict[str, Tensor], dict[str, Tensor]], teacher: Teacher
) -> None:
    before, after = before_and_after
    assert [name for name in before if name.startswith("teacher.") and not torch.equal(before[name], after[name])] == []


def test_teacher_is_in_eval_mode_after_a_step(
    before_and_after: tuple[dict[str, Tensor], dict[str, Tensor]], teacher: Teacher
) -> None:
    assert not any(module.training for module in teacher.modules())


def test_teacher_has_no_gradient_after_a_step(
    before_and_after: tuple[dict[str, Tensor], dict[str, Tensor]], teacher: Teacher
) -> None:
    assert all(parameter.grad is None for parameter in teacher.parameters())


@pytest.mark.parametrize("part", ["backbone.", "attention.project.", "projector.", "predictor."])
def test_student_changes_in_a_step(
    before_and_after: tuple[dict[str, Tensor], dict[str, Tensor]], student: Student, part: str
) -> None:
    before, after = before_and_after
    learned = [name for name, _ in student.named_parameters() if name.startswith(part)]
    assert [name for name in learned if torch.equal(before[f"student.{name}"], after[f"student.{name}"])] == []


def test_steps_on_one_batch_lower_its_loss(
    student: Student, teacher: Teacher, queue: NegativeQueue, views: Views
) -> None:
    optimizer = build_optimizer(student, OptimizerSettings(name="adamw", learning_rate=1e-3))
    losses = []
    for _ in range(6):
        loss, _ = training_loss(student, teacher, contrast(queue, student), *views)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
