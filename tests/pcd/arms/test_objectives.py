"""What each objective makes of two views, what it remembers, and that every arm trains."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pcd.alignment import Geometry
from pcd.arms import ARMS
from pcd.arms.bingo import nearest_in_queue
from pcd.arms.compress import similarity_divergence
from pcd.arms.disco import squared_distance
from pcd.arms.feature_mse import feature_squared_error
from pcd.arms.pixel_no_negatives import pixel_squared_error
from pcd.arms.seed import similarity_distillation_loss
from pcd.errors import PCDError
from pcd.finite_guard import NotFiniteError
from pcd.loss import reference_pixel_contrastive_loss
from pcd.networks import build_pair
from pcd.objective import Objective, Outputs, View, load_objective, vectors_of
from pcd.replay import replay
from pcd.settings import LossSettings, PretrainSettings, of_arm
from pcd.stage import Spec
from pcd.students import Student
from pcd.teachers import TEACHERS, Teacher
from pcd.train import pretrain
from pcd.training_loss import training_loss
from tests.pcd.slow_parameters import slow_but
from tests.pcd.training_runs import TINY, backbones_equal, interrupt, losses

PRETRAINED = [name for name, arm in ARMS.items() if arm.kind == "pretrain"]
COMPARATORS = [name for name in PRETRAINED if ARMS[name].objective != "pcd"]
STUDENT = "timm:test_resnet"

Made = tuple[Objective, Student, Teacher]


def _settings(arm: str, **changes: Any) -> PretrainSettings:
    base = PretrainSettings(student=STUDENT, attention_heads=4, global_batch=4, loss=LossSettings(negatives=12))
    return of_arm(base.model_copy(update=changes), arm)


@pytest.fixture
def make(teacher_folder: Path) -> Callable[..., Made]:
    def make(arm: str, steps: int = 100) -> Made:
        settings = _settings(arm)
        teacher, student = build_pair(teacher_folder, "demo", settings, seed=0)
        objective = load_objective(settings.objective)(settings, TEACHERS["demo"], student, 0, steps)
        return objective, student.train(), teacher

    return make


@pytest.fixture
def views() -> tuple[View, View]:
    crops = Geometry(torch.tensor([[0.0, 0.0, 1.0, 1.0]] * 4), torch.zeros(4, dtype=torch.bool))
    return View(torch.randn(4, 3, 64, 64), crops), View(torch.randn(4, 3, 64, 64), crops)


def _outputs(made: Made, views: tuple[View, View]) -> Outputs:
    """As the objective sees them, of a student in eval mode, which can be asked twice."""
    seen: list[Outputs] = []
    objective, student, teacher = made
    objective.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    training_loss(student.eval(), teacher, objective, *views)
    return seen[0]


def _slow_vectors(objective: Any, view: View) -> Tensor:
    return vectors_of(objective.slow(view.images))


def _seed(o: Any, s: list[Tensor], t: list[Tensor], views: tuple[View, View]) -> Tensor:
    terms = [similarity_distillation_loss(a, b, o.queue.negatives, 0.2, 1e-4) for a, b in zip(s, t, strict=True)]
    return torch.stack(terms).mean()


def _compress(o: Any, s: list[Tensor], t: list[Tensor], views: tuple[View, View]) -> Tensor:
    queues = o.student_queue.negatives, o.teacher_queue.negatives
    return torch.stack([similarity_divergence(a, b, *queues, 0.04) for a, b in zip(s, t, strict=True)]).mean()


def _disco(o: Any, s: list[Tensor], t: list[Tensor], views: tuple[View, View]) -> Tensor:
    keys = _slow_vectors(o, views[1])
    contrast = reference_pixel_contrastive_loss(
        s[0][:, :, None, None], keys[:, :, None, None], o.queue.negatives, temperature=0.2
    )
    return contrast + 32 * (squared_distance(s[0], t[0]) + squared_distance(s[1], t[1]))


def _bingo(o: Any, s: list[Tensor], t: list[Tensor], views: tuple[View, View]) -> Tensor:
    terms = []
    for student, teacher in ((s[0], t[1]), (s[1], t[0])):
        own = reference_pixel_contrastive_loss(
            student[:, :, None, None], teacher[:, :, None, None], o.queue.negatives, temperature=0.2
        )
        related = []
        for s_i, t_i in zip(student, teacher, strict=True):
            (bag,) = nearest_in_queue(t_i[None], o.queue.negatives[: o.vectors_seen], 5).tolist()
            rest = o.queue.negatives[[place for place in range(len(o.queue)) if place not in bag]]
            related += [
                reference_pixel_contrastive_loss(
                    s_i[None, :, None, None], o.queue.negatives[place][None, :, None, None], rest, temperature=0.2
                )
                for place in bag
            ]
        terms.append((own + torch.stack(related).mean()) / 2)
    return torch.stack(terms).mean()


VECTOR_LOSSES = {"seed": _seed, "compress": _compress, "disco": _disco, "bingo": _bingo}


@pytest.mark.parametrize("arm", VECTOR_LOSSES)
def test_the_loss_of_two_views_is_its_formulas(make: Callable[..., Made], views: tuple[View, View], arm: str) -> None:
    made = make(arm)
    objective: Any = made[0]
    if arm == "bingo":
        objective.steps_done, objective.vectors_seen = 50, 9
    outputs = _outputs(made, views)
    loss, _ = objective(outputs)
    student, teacher = ([vectors_of(maps) for maps in pair] for pair in (outputs[:2], outputs[2:4]))
    torch.testing.assert_close(loss, VECTOR_LOSSES[arm](objective, student, teacher, views), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("arm", "error", "partners"),
    [("feature-mse", feature_squared_error, (2, 3)), ("pixel-no-negatives", pixel_squared_error, (3, 2))],
)
def test_the_loss_of_two_views_maps_is_the_mean_of_both_directions(
    make: Callable[..., Made],
    views: tuple[View, View],
    arm: str,
    error: Callable[..., Tensor],
    partners: tuple[int, int],
) -> None:
    made = make(arm)
    outputs = _outputs(made, views)
    expected = (error(outputs[0], outputs[partners[0]]) + error(outputs[1], outputs[partners[1]])) / 2
    torch.testing.assert_close(made[0](outputs)[0], expected)


@pytest.mark.parametrize("arm", COMPARATORS)
def test_every_weight_of_the_student_learns_and_nothing_else_does(
    make: Callable[..., Made], views: tuple[View, View], arm: str
) -> None:
    objective, student, teacher = make(arm)
    training_loss(student, teacher, objective, *views)[0].backward()
    assert [name for name, p in student.named_parameters() if p.grad is None] == []
    assert [p for p in (*objective.parameters(), *teacher.parameters()) if p.grad is not None] == []


@pytest.mark.parametrize("arm", ["seed", "compress", "disco", "bingo"])
def test_an_image_level_student_puts_out_one_vector_of_each_image(
    make: Callable[..., Made], views: tuple[View, View], arm: str
) -> None:
    outputs = _outputs(make(arm), views)
    assert [tuple(maps.shape[2:]) for maps in outputs[:4]] == [(1, 1)] * 4


def test_the_teachers_part_of_the_image_level_arms_is_what_its_head_says_of_the_whole_view(
    make: Callable[..., Made], views: tuple[View, View]
) -> None:
    made = make("seed")
    teacher = made[2]
    said = teacher.adaptor.head(teacher.trunk(views[0].images).mean(dim=(2, 3)))  # type: ignore[operator, union-attr]
    torch.testing.assert_close(vectors_of(_outputs(made, views).teacher1), said, rtol=1e-3, atol=1e-3)


# ---- memory


def test_compress_keeps_the_same_images_at_the_same_places_of_both_queues(
    make: Callable[..., Made], views: tuple[View, View]
) -> None:
    objective, student, teacher = make("compress")
    made: Any = objective
    _, vectors = training_loss(student, teacher, objective, *views)
    objective.after_step(student, vectors)
    for queue, images in ((made.student_queue, vectors[0]), (made.teacher_queue, vectors[1])):
        torch.testing.assert_close(queue.negatives[:4], torch.nn.functional.normalize(images, dim=1))


@pytest.mark.parametrize("arm", ["compress", "disco"])
def test_the_slow_copy_follows_the_student_by_its_momentum(make: Callable[..., Made], arm: str) -> None:
    objective, student, _ = make(arm)
    slow: Any = objective.slow
    before = [p.clone() for p in slow.parameters()]
    with torch.no_grad():
        torch._foreach_add_(list(student.parameters()), 1)
    slow.follow(student)
    for was, now in zip(before, slow.parameters(), strict=True):
        torch.testing.assert_close(now, was + 0.001, rtol=0, atol=1e-5)


def test_discos_keys_are_the_slow_copys_of_view_2(make: Callable[..., Made], views: tuple[View, View]) -> None:
    objective, student, teacher = make("disco")
    _, (keys,) = training_loss(student, teacher, objective, *views)
    torch.testing.assert_close(keys, _slow_vectors(objective, views[1]))


@pytest.mark.parametrize(("steps_done", "vectors_seen"), [(54, 12), (90, 4)])
def test_bingo_begins_without_bags(
    make: Callable[..., Made], views: tuple[View, View], steps_done: int, vectors_seen: int
) -> None:
    made = make("bingo", steps=1000)  # of 1000 steps the first 55 are without, and a bag has 5 vectors
    objective: Any = made[0]
    objective.steps_done, objective.vectors_seen = steps_done, vectors_seen
    outputs = _outputs(made, views)
    negatives = objective.queue.negatives
    own = [
        reference_pixel_contrastive_loss(outputs[i], outputs[j], negatives, temperature=0.2)
        for i, j in ((0, 3), (1, 2))
    ]
    torch.testing.assert_close(objective(outputs)[0], (own[0] + own[1]) / 2, rtol=1e-4, atol=1e-5)


def test_bingos_bag_has_to_leave_negatives(make: Callable[..., Made], teacher_folder: Path) -> None:
    _, student, _ = make("bingo")
    settings = _settings("bingo", global_batch=4, loss=LossSettings(negatives=5))
    with pytest.raises(PCDError, match=r"a bag of 5 leaves no negatives in a queue of 5; raise loss\.negatives"):
        load_objective("bingo")(settings, TEACHERS["demo"], student, 0, 100)


@pytest.mark.parametrize("arm", PRETRAINED)
def test_its_whole_memory_is_in_its_state(make: Callable[..., Made], views: tuple[View, View], arm: str) -> None:
    (objective, student, teacher), (other, _, _) = make(arm), make(arm, steps=7)
    _, vectors = training_loss(student, teacher, objective, *views)
    objective.after_step(student, vectors)
    other.load_state_dict(objective.state_dict())
    images = torch.randn_like(views[0].images), torch.randn_like(views[1].images)
    later = tuple(View(image, view.geometry) for image, view in zip(images, views, strict=True))
    first, second = (training_loss(student, teacher, o, *later)[0] for o in (objective, other))
    assert torch.equal(first, second)


@pytest.mark.parametrize("arm", ["seed", "compress", "disco", "bingo"])
def test_a_pairing_that_means_nothing_to_an_objective_is_the_users_error(teacher_folder: Path, arm: str) -> None:
    settings = _settings(arm).model_copy(update={"loss": LossSettings(negatives=12, pairing="aligned")})
    _, student = build_pair(teacher_folder, "demo", settings, seed=0)
    with pytest.raises(PCDError, match=r"has no pairing aligned; set loss\.pairing to "):
        load_objective(settings.objective)(settings, TEACHERS["demo"], student, 0, 1)


# ---- whole runs


def _run(arm: str, **changes: Any) -> dict[str, Any]:
    """Of a tiny pre-training; the views are large enough for a map of several pixels."""
    settings = {**TINY, "student": STUDENT, "attention_heads": 4, "views": {"size": 64}, **changes}
    return of_arm(PretrainSettings.model_validate(settings), arm).model_dump(mode="json")


@pytest.mark.parametrize("arm", slow_but(("compress", "pcd-no-adaptor"), PRETRAINED))
def test_every_arm_trains_and_leaves_a_backbone(pretraining: Callable[..., Spec], arm: str) -> None:
    spec = pretraining(**_run(arm))
    assert pretrain(spec)["objective"] == ARMS[arm].objective
    assert len(losses(spec.out)) == 6
    assert all(torch.isfinite(torch.tensor(losses(spec.out))))
    assert (spec.out / "backbone.safetensors").exists()


def test_arms_share_the_samples_and_the_students_start(pretraining: Callable[..., Spec]) -> None:
    seen = []
    for arm in ("pcd-no-mhsa", "seed"):
        spec = pretraining(arm, **_run(arm))
        interrupt(spec, step=1)
        checkpoint = torch.load(spec.out / "checkpoint.pt", weights_only=True)
        seen.append(checkpoint["notes"]["first_samples_sha256"])
    assert seen[0] == seen[1]


@pytest.mark.parametrize("arm", slow_but(("disco",), ["compress", "disco", "bingo", "seed"]))
def test_a_resumed_run_with_a_memory_equals_the_uninterrupted_one(pretraining: Callable[..., Spec], arm: str) -> None:
    whole, broken = (pretraining(name, **_run(arm)) for name in ("whole", "broken"))
    pretrain(whole)
    interrupt(broken, step=4)
    pretrain(broken)
    assert backbones_equal(whole.out, broken.out)
    assert losses(whole.out) == losses(broken.out)


@pytest.mark.parametrize("arm", slow_but(("disco",), COMPARATORS))
def test_a_comparators_captured_step_replays(pretraining: Callable[..., Spec], arm: str) -> None:
    optimizer = {"name": "adamw", "learning_rate": 1e30, "warmup_epochs": 0}
    spec = pretraining(**_run(arm, epochs=1, optimizer=optimizer))
    with pytest.raises(NotFiniteError):
        pretrain(spec)
    (captured,) = spec.out.glob("nonfinite*.pt")
    again = replay(captured)
    assert not torch.isfinite(torch.tensor(again.loss + again.gradient_norm))


@pytest.mark.slow
@pytest.mark.parametrize("arm", ["compress", "disco", "feature-mse"])
def test_two_ranks_train_a_comparator(command: Callable[..., list[str]], arm: str) -> None:
    done = subprocess.run(
        command(processes=2, **_run(arm, student="shufflenet_v2_x1_0")), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
