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

from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["pixel_contrastive_loss", "reference_pixel_contrastive_loss"]

_CHUNK: Final = 4096
"""Negatives held against all pixels at once where no attention kernel runs: 4096 x 784 logits are 13 MB."""


def pixel_contrastive_loss(student: Tensor, teacher: Tensor, negatives: Tensor, temperature: float) -> Tensor:
    """Mean loss over all pixels; the gradient flows to `student` only.

    Args:
        student: (B, C, H, W), any length of vectors; they are normalised here.
        teacher: (B, C, H, W), the positive of each pixel is the same grid position.
        negatives: (K, C).
        temperature: above 0.

    Returns:
        A scalar, computed in fp32 whatever the inputs' type.

    Raises:
        ValueError: shapes that do not fit, no negatives, or a temperature of 0 or less.
    """
    s, t, n = _unit_pixels(student, teacher, negatives, temperature)
    losses: Tensor = _PixelContrast.apply(s, t, n, temperature)
    return losses.mean()


def reference_pixel_contrastive_loss(student: Tensor, teacher: Tensor, negatives: Tensor, temperature: float) -> Tensor:
    """The same contract by the plain formula, with its (P, K + 1) logits. What the fast loss is tested against."""
    s, t, n = _unit_pixels(student, teacher, negatives, temperature)
    positive = (s * t).sum(dim=1, keepdim=True)  # (P, 1)
    logits = torch.cat([positive, s @ n.T], dim=1) / temperature  # (P, K + 1)
    return F.cross_entropy(logits, torch.zeros(len(s), dtype=torch.long, device=s.device))


def _unit_pixels(
    student: Tensor, teacher: Tensor, negatives: Tensor, temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    if student.ndim != 4 or student.shape != teacher.shape:
        raise ValueError(
            f"student and teacher must be two (B, C, H, W) maps of one shape, got {tuple(student.shape)} "
            f"and {tuple(teacher.shape)}"
        )
    if negatives.ndim != 2 or negatives.shape[1] != student.shape[1] or len(negatives) == 0:
        raise ValueError(f"negatives must be (K, {student.shape[1]}) with K > 0, got {tuple(negatives.shape)}")
    if temperature <= 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    # fp32: bf16 keeps three digits, and 1/tau multiplies what it loses. contiguous: the CPU's attention kernel takes
    # the last stride for 1, and the pixels of a single NCHW image are a transposed view.
    s = F.normalize(_pixels(student.float()), dim=1).contiguous()
    t = F.normalize(_pixels(teacher.detach().float()), dim=1)
    n = F.normalize(negatives.detach().float(), dim=1).contiguous()
    return s, t, n


def _pixels(maps: Tensor) -> Tensor:
    return maps.permute(0, 2, 3, 1).flatten(0, 2)  # (B, C, H, W) -> (P, C)


class _PixelContrast(torch.autograd.Function):
    """(P, C), (P, C), (K, C), tau -> (P,); the forward pass already knows the gradient and keeps only that."""

    @staticmethod
    def forward(ctx: Any, s: Tensor, t: Tensor, n: Tensor, temperature: float) -> Tensor:
        o, z = _attend(s, n, temperature)
        positive = (s * t).sum(dim=1) / temperature  # (P,)
        total = torch.logaddexp(positive, z)
        miss = -torch.expm1(positive - total)[:, None]  # 1 - p, exact also where p is nearly 1; (P, 1)
        ctx.save_for_backward(miss * (o - t) / temperature)
        return total - positive

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * grads[0][:, None], None, None, None


def _attend(s: Tensor, n: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """o (P, C), the softmax-weighted mean of the negatives, and z (P,), the log-sum-exp of the logits."""
    if s.device.type == "cpu":
        query, keys = s[None, None], n[None, None]  # (1, 1, P, C), (1, 1, K, C)
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(query, keys, keys, scale=1 / temperature)
        return out[0, 0], lse[0, 0]
    return _attend_in_chunks(s, n, temperature)


def _attend_in_chunks(s: Tensor, n: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """The same on any device, over chunks of the queue with a running maximum.

    Logits lie within 1/tau of 0, but at tau = 0.01 already exp(-2/tau) is 0 in fp32, and all negatives may be that far.
    """
    with torch.autocast(s.device.type, enabled=False):  # it would turn the products into bf16
        weighted, total = torch.zeros_like(s), s.new_zeros(len(s))  # (P, C), (P,)
        top = s.new_full((len(s),), -torch.inf)
        for chunk in n.split(_CHUNK):
            logits = s @ chunk.T / temperature  # (P, chunk)
            higher = torch.maximum(top, logits.amax(dim=1))
            shrink, weights = (top - higher).exp(), (logits - higher[:, None]).exp()
            weighted = weighted * shrink[:, None] + weights @ chunk
            total = total * shrink + weights.sum(dim=1)
            top = higher
        return weighted / total[:, None], total.log() + top
