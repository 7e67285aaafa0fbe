import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pcd.loss import _CHUNK, _attend, _attend_in_chunks, pixel_contrastive_loss, reference_pixel_contrastive_loss

SHAPES = [(1, 4, 1, 1, 1), (2, 8, 3, 5, 1), (3, 16, 2, 2, 37), (2, 7, 4, 3, _CHUNK), (1, 32, 7, 7, _CHUNK + 5)]
"""B, C, H, W, K."""


def _tensors(b: int, c: int, h: int, w: int, k: int) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(b + 10 * c + 100 * k)
    return 2 * torch.randn(b, c, h, w), 3 * torch.randn(b, c, h, w), torch.randn(k, c)


def _gradient(loss: Tensor, student: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(loss, student)
    return gradient


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("temperature", [0.07, 0.2, 1.0])
def test_loss_equals_the_reference(shape: tuple[int, int, int, int, int], temperature: float) -> None:
    student, teacher, negatives = _tensors(*shape)
    fast = pixel_contrastive_loss(student, teacher, negatives, temperature)
    torch.testing.assert_close(
        fast, reference_pixel_contrastive_loss(student, teacher, negatives, temperature), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("temperature", [0.07, 0.2, 1.0])
def test_gradient_equals_the_references(shape: tuple[int, int, int, int, int], temperature: float) -> None:
    student, teacher, negatives = _tensors(*shape)
    student.requires_grad_()
    fast = _gradient(pixel_contrastive_loss(student, teacher, negatives, temperature), student)
    plain = _gradient(reference_pixel_contrastive_loss(student, teacher, negatives, temperature), student)
    torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-5 * plain.abs().max().item())


def test_gradient_scales_with_the_gradient_from_above() -> None:
    student, teacher, negatives = _tensors(2, 8, 3, 3, 20)
    student.requires_grad_()
    once = _gradient(pixel_contrastive_loss(student, teacher, negatives, 0.2), student)
    thrice = _gradient(3 * pixel_contrastive_loss(student, teacher, negatives, 0.2), student)
    torch.testing.assert_close(thrice, 3 * once)


@pytest.mark.parametrize("k", [1, 3, _CHUNK, _CHUNK + 1, 2 * _CHUNK + 7])
def test_attending_in_chunks_equals_the_kernel(k: int) -> None:
    s, n = F.normalize(torch.randn(13, 16), dim=1), F.normalize(torch.randn(k, 16), dim=1)
    for chunked, kernel in zip(_attend_in_chunks(s, n, 0.2), _attend(s, n, 0.2), strict=True):
        torch.testing.assert_close(chunked, kernel, rtol=1e-5, atol=1e-5)


def test_attending_in_chunks_equals_the_kernel_at_a_low_temperature() -> None:
    s = F.normalize(torch.randn(6, 16), dim=1)
    n = -s[:1]  # an exactly opposite negative: its logit lies 2 / tau below the largest possible
    for chunked, kernel in zip(_attend_in_chunks(s, n, 0.01), _attend(s, n, 0.01), strict=True):
        torch.testing.assert_close(chunked, kernel, rtol=1e-4, atol=1e-4)


def test_attending_in_chunks_computes_in_fp32_under_autocast() -> None:
    s, n = F.normalize(torch.randn(13, 16), dim=1), F.normalize(torch.randn(50, 16), dim=1)
    expected = _attend_in_chunks(s, n, 0.2)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = _attend_in_chunks(s, n, 0.2)
    for under_autocast, plain in zip(mixed, expected, strict=True):
        torch.testing.assert_close(under_autocast, plain)


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
def test_half_precision_inputs_give_a_close_fp32_loss(dtype: torch.dtype) -> None:
    student, teacher, negatives = _tensors(2, 8, 3, 3, 20)
    half = pixel_contrastive_loss(student.to(dtype), teacher.to(dtype), negatives.to(dtype), 0.2)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, pixel_contrastive_loss(student, teacher, negatives, 0.2), rtol=0.02, atol=0.02)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_inputs_get_a_finite_gradient(dtype: torch.dtype) -> None:
    student, teacher, negatives = (x.to(dtype) for x in _tensors(2, 8, 3, 3, 20))
    student.requires_grad_()
    assert _gradient(pixel_contrastive_loss(student, teacher, negatives, 0.2), student).isfinite().all()


def test_autocast_does_not_change_the_loss() -> None:
    student, teacher, negatives = _tensors(2, 8, 3, 3, 20)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = pixel_contrastive_loss(student, teacher, negatives, 0.2)
    torch.testing.assert_close(mixed, pixel_contrastive_loss(student, teacher, negatives, 0.2))


@pytest.mark.parametrize("loss", [pixel_contrastive_loss, reference_pixel_contrastive_loss])
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
