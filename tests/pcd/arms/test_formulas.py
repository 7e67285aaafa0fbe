"""Every comparator's loss against its formula, computed plainly: loops over images and vectors, in fp64."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from pcd.arms.bingo import contrast_with_bags, nearest_in_queue
from pcd.arms.compress import similarity_divergence
from pcd.arms.disco import squared_distance
from pcd.arms.feature_mse import feature_squared_error
from pcd.arms.pixel_no_negatives import pixel_squared_error
from pcd.arms.seed import similarity_distillation_loss

Array = NDArray[np.float64]


def _plain(x: Tensor) -> Array:
    return x.detach().numpy().astype(np.float64)


def _unit(x: Array) -> Array:
    return x / np.linalg.norm(x)


def _softmax(x: Array) -> Array:
    return np.exp(x - x.max()) / np.exp(x - x.max()).sum()


def _unit_rows(*shape: int) -> Tensor:
    return torch.nn.functional.normalize(torch.randn(*shape), dim=1)


@pytest.mark.parametrize("teacher_temperature", [1e-4, 0.07])
def test_seed_is_the_cross_entropy_of_two_similarity_distributions(teacher_temperature: float) -> None:
    student, teacher, queue = 3 * torch.randn(4, 6), 2 * torch.randn(4, 6), _unit_rows(9, 6)
    losses = []
    for s, t in zip(_plain(student), _plain(teacher), strict=True):
        others = [_unit(t), *_plain(queue)]
        of_teacher = _softmax(np.array([_unit(t) @ q for q in others]) / teacher_temperature)
        of_student = _softmax(np.array([_unit(s) @ q for q in others]) / 0.2)
        losses.append(-(of_teacher * np.log(of_student)).sum())
    loss = similarity_distillation_loss(student, teacher, queue, 0.2, teacher_temperature)
    assert loss.item() == pytest.approx(np.mean(losses), rel=1e-4)


def test_compress_is_the_divergence_of_similarities_in_each_networks_own_space() -> None:
    student, teacher = 3 * torch.randn(4, 6), 2 * torch.randn(4, 10)
    student_queue, teacher_queue = _unit_rows(9, 6), _unit_rows(9, 10)
    losses = []
    for s, t in zip(_plain(student), _plain(teacher), strict=True):
        p = _softmax(np.array([_unit(t) @ n for n in _plain(teacher_queue)]) / 0.04)
        q = _softmax(np.array([_unit(s) @ m for m in _plain(student_queue)]) / 0.04)
        losses.append((p * (np.log(p) - np.log(q))).sum())
    loss = similarity_divergence(student, teacher, student_queue, teacher_queue, 0.04)
    assert loss.item() == pytest.approx(np.mean(losses), rel=1e-4)


def test_compress_vanishes_where_both_spaces_are_one_turned() -> None:
    teacher, queue = torch.randn(4, 6), _unit_rows(9, 6)
    turn, _ = torch.linalg.qr(torch.randn(6, 6))
    assert similarity_divergence(teacher @ turn, teacher, queue @ turn, queue, 0.04).item() == pytest.approx(
        0, abs=1e-5
    )


def test_discos_distance_is_that_of_unit_vectors() -> None:
    student, teacher = 3 * torch.randn(4, 6), 2 * torch.randn(4, 6)
    pairs = zip(_plain(student), _plain(teacher), strict=True)
    expected = np.mean([((_unit(s) - _unit(t)) ** 2).sum() for s, t in pairs])
    assert squared_distance(student, teacher).item() == pytest.approx(expected, rel=1e-5)


def test_a_bag_is_the_nearest_vectors_of_the_queue() -> None:
    vectors, queue = torch.randn(4, 6), _unit_rows(20, 6)
    bags = nearest_in_queue(vectors, queue, 3).tolist()
    for vector, bag in zip(_plain(vectors), bags, strict=True):
        similarities = _plain(queue) @ _unit(vector)
        assert bag == sorted(range(20), key=lambda place: -similarities[place])[:3]


def test_bags_are_contrasted_with_the_rest_of_the_queue() -> None:
    student, queue = 3 * torch.randn(4, 6), _unit_rows(9, 6)
    bags = torch.tensor([[0, 3], [8, 1], [4, 5], [2, 7]])
    losses = []
    for s, bag in zip(_plain(student), bags.tolist(), strict=True):
        negatives = [_plain(queue)[place] for place in range(9) if place not in bag]
        for place in bag:
            logits = np.array([_unit(s) @ n for n in (_plain(queue)[place], *negatives)]) / 0.2
            losses.append(-np.log(_softmax(logits)[0]))
    assert contrast_with_bags(student, queue, bags, 0.2).item() == pytest.approx(np.mean(losses), rel=1e-4)


def test_a_student_that_has_its_related_vector_has_next_to_no_loss() -> None:
    queue = torch.eye(6)  # at right angles, and the bag of one is row 2
    student = queue[2:3].clone().requires_grad_()
    loss = contrast_with_bags(student, queue, torch.tensor([[2]]), 0.05)
    loss.backward()
    assert loss.item() < 1e-6  # log 2 and more, were the row its own negative
    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_feature_error_is_the_mean_square_over_everything() -> None:
    student, teacher = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    expected = np.mean((_plain(student) - _plain(teacher)) ** 2)
    assert feature_squared_error(student, teacher).item() == pytest.approx(expected, rel=1e-5)


def test_pixel_error_is_the_distance_of_unit_pixels() -> None:
    student, teacher = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    s, t = _plain(student), _plain(teacher)
    places = [(b, h, w) for b in range(2) for h in range(4) for w in range(5)]
    expected = np.mean([((_unit(s[b, :, h, w]) - _unit(t[b, :, h, w])) ** 2).sum() for b, h, w in places])
    assert pixel_squared_error(student, teacher).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("error", [feature_squared_error, pixel_squared_error])
def test_pixels_without_weight_do_not_count(error: Callable[..., Tensor]) -> None:
    student, teacher, weights = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5), torch.zeros(2, 4, 5).bool()
    assert error(student, teacher, weights).item() == 0
    weights[1, 2, :3] = True
    chosen = [x[1:, :, 2:3, :3] for x in (student, teacher)]
    torch.testing.assert_close(error(student, teacher, weights), error(*chosen))
