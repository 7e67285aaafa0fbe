import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pcd.loss import pixel_contrastive_loss, reference_pixel_contrastive_loss
from pcd.loss_backends import _CHUNK

SHAPES = [(1, 4, 1, 1, 1), (2, 8, 3, 5, 1), (3, 16, 2, 2, 37), (2, 7, 4, 3, _CHUNK), (1, 32, 7, 7, _CHUNK + 5)]
"""B, C, H, W, K."""

BACKENDS = ["auto", "attention", "chunks", "reference"]

LOSSES = [pixel_contrastive_loss, reference_pixel_contrastive_loss]

LARGE = [(16, 64, 7, 7, 16384), (16, 100, 7, 7, 5000), (16, 128, 7, 7, 16384), (16, 256, 7, 7, 65536),
         (128, 256, 7, 7, 1), (128, 256, 7, 7, 4096), (2, 8192, 7, 7, 4096)]  # fmt: skip


def _tensors(b: int, c: int, h: int, w: int, k: int) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(b + 10 * c + 100 * k)
    return 2 * torch.randn(b, c, h, w), 3 * torch.randn(b, c, h, w), torch.randn(k, c)


def _gradient(loss: Tensor, student: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(loss, student)
    return gradient


def _assert_equals_the_reference(
    tensors: tuple[Tensor, Tensor, Tensor], temperature: float, backends: list[Any], tolerance: float
) -> None:
    student, teacher, negatives = tensors
    student.requires_grad_()
    plain = reference_pixel_contrastive_loss(student, teacher, negatives, temperature)
    expected = _gradient(plain, student)
    for backend in backends:
        fast = pixel_contrastive_loss(student, teacher, negatives, temperature, backend=backend)
        torch.testing.assert_close(fast, plain, rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(
            _gradient(fast, student), expected, rtol=10 * tolerance, atol=tolerance * expected.abs().max().item()
        )


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("temperature", [0.07, 0.2, 1.0])
@pytest.mark.parametrize("backend", BACKENDS)
def test_loss_and_gradient_equal_the_references(
    shape: tuple[int, int, int, int, int], temperature: float, backend: str
) -> None:
    _assert_equals_the_reference(_tensors(*shape), temperature, [backend], 1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_loss_and_gradient_equal_the_references_at_a_low_temperature(backend: str) -> None:
    # The logits go up to 100, so fp32 itself rounds them by up to 8e-6: the softmax is as far off.
    _assert_equals_the_reference(_tensors(2, 16, 3, 3, 500), 0.01, [backend], 5e-5)


@pytest.mark.slow
@pytest.mark.parametrize("shape", LARGE, ids=str)
def test_loss_and_gradient_equal_the_references_at_the_methods_sizes(shape: tuple[int, int, int, int, int]) -> None:
    _assert_equals_the_reference(_tensors(*shape), 0.2, ["attention", "chunks"], 1e-5)


@pytest.mark.slow
def test_loss_and_gradient_equal_the_references_for_a_batch_of_128_and_the_whole_queue() -> None:
    _assert_equals_the_reference(_tensors(128, 32, 7, 7, 65536), 0.2, ["attention"], 1e-5)  # logits of 1.6 GB


def test_gradient_scales_with_the_gradient_from_above() -> None:
    student, teacher, negatives = _tensors(2, 8, 3, 3, 20)
    student.requires_grad_()
    once = _gradient(pixel_contrastive_loss(student, teacher, negatives, 0.2), student)
    thrice = _gradient(3 * pixel_contrastive_loss(student, teacher, negatives, 0.2), student)
    torch.testing.assert_close(thrice, 3 * once)


def test_loss_equals_a_slow_loop_over_the_papers_formula() -> None:
    student, teacher, negatives = _tensors(2, 5, 2, 3, 4)
    tau = 0.3

    def cosine(a: Tensor, b: Tensor) -> float:
        dot = sum(float(x) * float(y) for x, y in zip(a, b, strict=True))
        return dot / math.hypot(*a.tolist()) / math.hypot(*b.tolist())

    losses = []
    for image in range(2):
        for row in range(2):
            for column in range(3):
                s, t = student[image, :, row, column], teacher[image, :, row, column]
                positive = math.exp(cosine(s, t) / tau)
                others = sum(math.exp(cosine(s, n) / tau) for n in negatives)
                losses.append(-math.log(positive / (positive + others)))
    assert pixel_contrastive_loss(student, teacher, negatives, tau).item() == pytest.approx(
        sum(losses) / len(losses), rel=1e-5
    )


@pytest.mark.parametrize("k", [1, 10, 5000])
def test_equal_similarities_give_the_log_of_the_candidates(k: int) -> None:
    vector = torch.randn(6)
    maps = vector[None, :, None, None].expand(2, 6, 3, 3)
    assert pixel_contrastive_loss(maps, maps, vector.expand(k, 6), 0.2).item() == pytest.approx(
        math.log(k + 1), rel=1e-5
    )


def test_opposite_negatives_give_the_closed_form() -> None:
    maps, k, tau = torch.randn(6)[None, :, None, None].expand(1, 6, 2, 2), 9, 0.5
    negatives = -maps[0, :, 0, 0].expand(k, 6)
    assert pixel_contrastive_loss(maps, maps, negatives, tau).item() == pytest.approx(
        math.log1p(k * math.exp(-2 / tau)), rel=1e-4
    )


def test_identical_features_with_far_negatives_give_near_zero_loss() -> None:
    maps = torch.randn(6)[None, :, None, None].expand(1, 6, 2, 2)
    assert 0 <= pixel_contrastive_loss(maps, maps, -maps[0, :, 0, 0].expand(3, 6), 0.05).item() < 1e-6


def test_permuting_teacher_pixels_raises_the_loss() -> None:
    teacher = torch.randn(2, 16, 4, 4)
    student = teacher + 0.1 * torch.randn_like(teacher)
    permuted = teacher.flatten(2)[:, :, torch.arange(16).roll(1)].view_as(teacher)
    negatives = torch.randn(32, 16)
    assert pixel_contrastive_loss(student, permuted, negatives, 0.2) > 2 * pixel_contrastive_loss(
        student, teacher, negatives, 0.2
    )


def test_teacher_gets_no_gradient() -> None:
    student, teacher, negatives = _tensors(2, 8, 3, 3, 20)
    pixel_contrastive_loss(student.requires_grad_(), teacher.requires_grad_(), negatives, 0.2).backward()
    assert teacher.grad is None


def test_negatives_get_no_gradient() -> None:
    student, teacher, negatives = _tensors(2, 8, 3, 3, 20)
    pixel_contrastive_loss(student.requires_grad_(), teacher, negatives.requires_grad_(), 0.2).backward()
    assert negatives.grad is None


def test_lengths_of_vectors_do_not_matter() -> None:
    student, teacher, negatives = _tensors(2, 8, 3, 3, 20)
    lengths = torch.rand(2, 1, 3, 3) + 0.1
    torch.testing.assert_close(
        pixel_contrastive_loss(lengths * student, 7 * teacher, torch.rand(20, 1).add(0.1) * negatives, 0.2),
        pixel_contrastive_loss(student, teacher, negatives, 0.2),
    )


def test_a_gradient_step_lowers_the_loss() -> None:
    student, teacher, negatives = _tensors(2, 8, 3, 3, 20)
    student.requires_grad_()
    before = pixel_contrastive_loss(student, teacher, negatives, 0.2)
    after = pixel_contrastive_loss(student - 10 * _gradient(before, student), teacher, negatives, 0.2)
    assert after < before


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda x: x.contiguous(),
    "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "transposed": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    "slice": lambda x: torch.cat([x, x], dim=1)[:, : x.shape[1]],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("images", [1, 2])
def test_memory_layout_of_the_student_does_not_matter(layout: str, images: int) -> None:
    student, teacher, negatives = _tensors(images, 8, 3, 5, 20)
    student = LAYOUTS[layout](student).requires_grad_()
    fast = _gradient(pixel_contrastive_loss(student, teacher, negatives, 0.2), student)
    plain = _gradient(reference_pixel_contrastive_loss(student, teacher, negatives, 0.2), student)
    torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-6)


def test_memory_layout_of_the_negatives_does_not_matter() -> None:
    student, teacher, negatives = _tensors(2, 8, 3, 5, 20)
    student.requires_grad_()
    transposed = negatives.T.contiguous().T
    fast = _gradient(pixel_contrastive_loss(student, teacher, transposed, 0.2), student)
    plain = _gradient(reference_pixel_contrastive_loss(student, teacher, negatives, 0.2), student)
    torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("backend", BACKENDS)
def test_half_precision_inputs_give_a_close_fp32_loss(dtype: torch.dtype, backend: Any) -> None:
    student, teacher, negatives = _tensors(2, 8, 3, 3, 20)
    half = pixel_contrastive_loss(student.to(dtype), teacher.to(dtype), negatives.to(dtype), 0.2, backend=backend)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, pixel_contrastive_loss(student, teacher, negatives, 0.2), rtol=0.02, atol=0.02)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("temperature", [0.01, 0.2])
@pytest.mark.parametrize("backend", BACKENDS)
def test_half_precision_inputs_get_a_finite_gradient(dtype: torch.dtype, temperature: float, backend: Any) -> None:
    student, teacher, negatives = (x.to(dtype) for x in _tensors(2, 8, 3, 3, 20))
    student.requires_grad_()
    loss = pixel_contrastive_loss(student, teacher, negatives, temperature, backend=backend)
    gradient = _gradient(loss, student)
    assert gradient.dtype == dtype
    assert gradient.isfinite().all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_autocast_does_not_change_the_loss(backend: Any) -> None:
    student, teacher, negatives = _tensors(2, 8, 3, 3, 20)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = pixel_contrastive_loss(student, teacher, negatives, 0.2, backend=backend)
    torch.testing.assert_close(mixed, pixel_contrastive_loss(student, teacher, negatives, 0.2, backend=backend))


@pytest.mark.parametrize("loss", LOSSES)
def test_equal_weights_give_the_plain_mean(loss: Callable[..., Tensor]) -> None:
    student, teacher, negatives = _tensors(2, 8, 3, 5, 20)
    weighted = loss(student, teacher, negatives, 0.2, weights=torch.full((2, 3, 5), 0.3))
    torch.testing.assert_close(weighted, loss(student, teacher, negatives, 0.2))


@pytest.mark.parametrize("loss", LOSSES)
def test_weights_of_0_and_1_give_the_mean_over_the_chosen_pixels(loss: Callable[..., Tensor]) -> None:
    student, teacher, negatives = _tensors(2, 8, 3, 5, 20)
    chosen = torch.rand(2, 3, 5) < 0.4
    parts = [
        loss(student[b, :, i, j][None, :, None, None], teacher[b, :, i, j][None, :, None, None], negatives, 0.2)
        for b, i, j in chosen.nonzero()
    ]
    torch.testing.assert_close(loss(student, teacher, negatives, 0.2, weights=chosen), torch.stack(parts).mean())


@pytest.mark.parametrize("backend", BACKENDS)
def test_weighted_gradient_equals_the_references(backend: Any) -> None:
    student, teacher, negatives = _tensors(2, 8, 3, 5, 20)
    student.requires_grad_()
    weights = torch.rand(2, 3, 5)
    fast = pixel_contrastive_loss(student, teacher, negatives, 0.2, weights=weights, backend=backend)
    plain = reference_pixel_contrastive_loss(student, teacher, negatives, 0.2, weights=weights)
    torch.testing.assert_close(_gradient(fast, student), _gradient(plain, student), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_weights_that_are_all_0_give_loss_0_and_gradient_0(loss: Callable[..., Tensor]) -> None:
    student, teacher, negatives = _tensors(2, 8, 3, 5, 20)
    none = loss(student.requires_grad_(), teacher, negatives, 0.2, weights=torch.zeros(2, 3, 5))
    assert none.item() == 0
    assert torch.equal(_gradient(none, student), torch.zeros_like(student))


@pytest.mark.parametrize("loss", LOSSES)
def test_weights_of_another_shape_raise_value_error(loss: Callable[..., Tensor]) -> None:
    with pytest.raises(ValueError, match=r"\(2, 3, 5\), got \(2, 5, 3\)"):
        loss(*_tensors(2, 8, 3, 5, 20), 0.2, weights=torch.ones(2, 5, 3))


def test_a_second_derivative_is_refused() -> None:
    student, teacher, negatives = _tensors(2, 8, 3, 3, 20)
    loss = pixel_contrastive_loss(student.requires_grad_(), teacher, negatives, 0.2)
    (gradient,) = torch.autograd.grad(loss, student, create_graph=True)
    with pytest.raises(NotImplementedError, match="second derivative"):
        gradient.square().sum().backward()


@pytest.mark.parametrize("unit", [True, False])
def test_loss_leaves_the_negatives_alone(unit: bool) -> None:
    student, teacher, negatives = _tensors(2, 8, 3, 3, 20)
    if unit:
        negatives = F.normalize(negatives, dim=1)
    before = negatives.clone()
    pixel_contrastive_loss(student.requires_grad_(), teacher, negatives, 0.2).backward()
    assert torch.equal(negatives, before)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(
    ("student", "teacher", "negatives", "temperature", "named"),
    [
        ((2, 4, 3, 3), (2, 4, 3, 2), (5, 4), 0.2, r"\(2, 4, 3, 2\)"),
        ((2, 4, 9), (2, 4, 9), (5, 4), 0.2, r"\(2, 4, 9\)"),
        ((2, 4, 3, 3), (2, 4, 3, 3), (5, 3), 0.2, r"\(5, 3\)"),
        ((2, 4, 3, 3), (2, 4, 3, 3), (4,), 0.2, r"\(4,\)"),
        ((2, 4, 3, 3), (2, 4, 3, 3), (0, 4), 0.2, "K > 0"),
        ((2, 4, 3, 3), (2, 4, 3, 3), (5, 4), 0.0, "temperature"),
        ((2, 4, 3, 3), (2, 4, 3, 3), (5, 4), -1.0, "temperature"),
    ],
)
def test_arguments_that_do_not_fit_raise_value_error(
    loss: Callable[..., Tensor],
    student: tuple[int, ...],
    teacher: tuple[int, ...],
    negatives: tuple[int, ...],
    temperature: float,
    named: str,
) -> None:
    with pytest.raises(ValueError, match=named):
        loss(torch.randn(student), torch.randn(teacher), torch.randn(negatives), temperature)
