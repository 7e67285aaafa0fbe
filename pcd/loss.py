"""The pixel-wise contrastive loss, without ever building the (pixels x K) logits.

For a student pixel s, its teacher pixel t and the queue's vectors n_k, all of unit length, at temperature tau:

    loss = -log[ exp(s.t/tau) / ( exp(s.t/tau) + sum_k exp(s.n_k/tau) ) ]

Write z = log sum_k exp(s.n_k/tau). Its gradient with respect to s is (1/tau) sum_k softmax_k(s.n_k/tau) n_k = o/tau,
where o is *attention* with query s, keys N, values N and scale 1/tau. So one attention forward that also returns its
log-sum-exp gives the loss and its gradient together, and there is no backward pass over the queue:

    pos = s.t/tau,  Z = logaddexp(pos, z),  loss = Z - pos,  p = exp(pos - Z)
    d loss / d s = (1/tau) [ (p - 1) t + (1 - p) o ]

Sources: the loss, arXiv 2211.00218 (abstract) and allo-rene/pcd@6b0ad4d; the attention identity is ours.
Axes: B images, C channels, H x W pixels of a map, P = B*H*W pixels, K negatives.
"""

from typing import Any, Final, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch import library as operators

from pcd.loss_backends import Backend, attend, choose_backend

__all__ = ["mean_over_pixels", "pixel_contrastive_loss", "reference_pixel_contrastive_loss"]


def pixel_contrastive_loss(
    student: Tensor,
    teacher: Tensor,
    negatives: Tensor,
    temperature: float,
    *,
    weights: Tensor | None = None,
    backend: Literal["auto"] | Backend = "auto",
) -> Tensor:
    """Mean loss over all pixels; the gradient flows to `student` only.

    Args:
        student: (B, C, H, W), any length of vectors; they are normalised here.
        teacher: (B, C, H, W), the positive of each pixel is the same grid position.
        negatives: (K, C).
        temperature: above 0.
        weights: (B, H, W), at least 0: each pixel's share of the mean, 0 leaves it out. If all are 0, so is the loss.
        backend: how the negatives are summed over, `pcd.loss_backends.choose_backend`; it changes the rounding only.

    Returns:
        A scalar in fp32, whatever the inputs' type. Half-precision students may meet their negatives in that type.

    Raises:
        ValueError: shapes that do not fit, no negatives, or a temperature of 0 or less.
        PCDError: the attention kernel was asked for by name and does not work here.
    """
    _check(student, teacher, negatives, temperature, weights)
    if backend == "reference":
        return reference_pixel_contrastive_loss(student, teacher, negatives, temperature, weights=weights)
    s, t = _unit_pixels(student), _unit_pixels(teacher.detach())
    losses, _ = torch.ops.pcd.pixel_contrast(s, t, negatives.detach(), temperature, backend, student.dtype)
    return mean_over_pixels(losses, weights)


def reference_pixel_contrastive_loss(
    student: Tensor, teacher: Tensor, negatives: Tensor, temperature: float, *, weights: Tensor | None = None
) -> Tensor:
    """The same contract by the plain formula, with its (P, K + 1) logits. What the fast loss is tested against."""
    _check(student, teacher, negatives, temperature, weights)
    with torch.autocast(student.device.type, enabled=False):  # it would turn the products into bf16
        s, t = _unit_pixels(student), _unit_pixels(teacher.detach())
        n = F.normalize(negatives.detach().float(), dim=1)
        positive = (s * t).sum(dim=1, keepdim=True)  # (P, 1)
        logits = torch.cat([positive, s @ n.T], dim=1) / temperature  # (P, K + 1)
        first = torch.zeros(len(s), dtype=torch.long, device=s.device)
        return mean_over_pixels(F.cross_entropy(logits, first, reduction="none"), weights)


def _check(student: Tensor, teacher: Tensor, negatives: Tensor, temperature: float, weights: Tensor | None) -> None:
    if student.ndim != 4 or student.shape != teacher.shape:
        raise ValueError(
            f"student and teacher must be two (B, C, H, W) maps of one shape, got {tuple(student.shape)} "
            f"and {tuple(teacher.shape)}"
        )
    if negatives.ndim != 2 or negatives.shape[1] != student.shape[1] or len(negatives) == 0:
        raise ValueError(f"negatives must be (K, {student.shape[1]}) with K > 0, got {tuple(negatives.shape)}")
    if temperature <= 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    pixels = (student.shape[0], *student.shape[2:])
    if weights is not None and weights.shape != pixels:
        raise ValueError(f"weights must be (B, H, W) = {tuple(pixels)}, got {tuple(weights.shape)}")


def _unit_pixels(maps: Tensor) -> Tensor:
    # fp32: bf16 keeps three digits, and 1/tau multiplies what it loses.
    return F.normalize(maps.float().permute(0, 2, 3, 1).flatten(0, 2), dim=1)  # (B, C, H, W) -> (P, C)


def mean_over_pixels(losses: Tensor, weights: Tensor | None) -> Tensor:
    """Of (P,) losses, each with its share of (B, H, W), if given; 0 if all shares are."""
    if weights is None:
        return losses.mean()
    shares = weights.detach().float().flatten()  # (P,)
    total = shares.sum()
    return (losses * shares).sum() / torch.where(total > 0, total, 1.0)


def _pixel_contrast(
    s: Tensor, t: Tensor, n: Tensor, temperature: float, backend: str, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """(P, C), (P, C), (K, C) to each pixel's loss (P,) and its gradient with respect to s (P, C).

    The forward pass already knows the gradient.
    """
    choice = choose_backend(s.device, dtype, s.shape[1], backend)  # type: ignore[arg-type]
    # contiguous: the CPU's attention kernel takes the last stride for 1.
    s, n = s.contiguous(), _unit_rows(n.float()).contiguous()
    o, z = attend(s, n, temperature, choice.backend, choice.dtype)
    positive = (s * t).sum(dim=1) / temperature  # (P,)
    total = torch.logaddexp(positive, z)
    miss = -torch.expm1(positive - total)  # 1 - p, exact also where p is nearly 1; (P,)
    return total - positive, o.sub_(t).mul_(miss[:, None] / temperature)


def _unit_rows(n: Tensor) -> Tensor:
    """Normalised; the queue's vectors are already, and then the CPU is spared the copy."""
    if n.device.type == "cpu" and torch.all((torch.linalg.vector_norm(n, dim=1) - 1).abs() < 1e-6):
        return n
    return F.normalize(n, dim=1)


def _shapes(s: Tensor, t: Tensor, n: Tensor, temperature: float, backend: str, dtype: Any) -> tuple[Tensor, Tensor]:
    return s.new_empty(len(s)), s.new_empty(s.shape)


def _keep_gradient(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(output[1])


def _scale_gradient(ctx: Any, above: Tensor | None, above_gradient: Tensor | None) -> tuple[Tensor | None, ...]:
    if above_gradient is not None:
        raise NotImplementedError("the pixel contrastive loss has no second derivative; take the reference")
    (gradient,) = ctx.saved_tensors
    return None if above is None else gradient * above[:, None], None, None, None, None, None


# An operator, so that torch.compile takes it as it is. Not by custom_op, whose first call imports the
# whole compiler: seconds, for nothing where nothing is compiled.
_OPERATOR: Final = "pcd::pixel_contrast"
operators.define(
    _OPERATOR,
    "(Tensor s, Tensor t, Tensor n, float temperature, str backend, ScalarType dtype) -> (Tensor, Tensor)",
    tags=torch.Tag.pt2_compliant_tag,
)
operators.impl(_OPERATOR, "default", _pixel_contrast)
operators.register_fake(_OPERATOR, _shapes)
operators.register_autograd(_OPERATOR, _scale_gradient, setup_context=_keep_gradient)
