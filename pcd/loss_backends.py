"""Attention of the student's pixels over the queue: which kernel runs it, and the kernels.

Every backend computes the same two things for unit pixels s (P, C), unit negatives n (K, C) and a temperature tau:
o (P, C), the negatives' mean weighted by softmax_k(s.n_k / tau), and z (P,), the log-sum-exp of these logits.

`attention` is PyTorch's fused kernel, asked for its log-sum-exp; `chunks` streams over the queue with a running
maximum, on any device; `reference` is the plain formula. They differ by rounding alone.
"""

import logging
from functools import cache
from typing import Final, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pcd.errors import PCDError
from pcd.precision import autocast_type

__all__ = ["Backend", "Choice", "attend", "choose_backend"]

Backend = Literal["attention", "chunks", "reference"]

_log = logging.getLogger(__name__)

_ROWS: Final = 1024
_CHUNK: Final = 4096
"""Pixels and negatives that `chunks` holds against each other at once: their fp32 logits take 16 MB."""

_WIDEST_ON_CPU: Final = 2048
"""Channels up to which the CPU's kernel is at least as fast as `chunks`: `python -m pcd.bench --only loss`."""

_WIDEST_ON_CUDA: Final = 256
"""Channels up to which the flash kernel works and the memory-efficient one keeps its sums in registers."""


class Choice(NamedTuple):
    backend: Backend
    dtype: torch.dtype
    """What the products are computed in; sums and results are fp32 always."""
    reason: str


def choose_backend(
    device: torch.device, dtype: torch.dtype, channels: int, wanted: Literal["auto"] | Backend = "auto"
) -> Choice:
    """The backend for student maps of this device, type and width, and why: one line for the training's log.

    Half-precision maps are computed in their own type where the processor gains from it, all others in fp32. The first
    time an attention kernel is chosen it has to reproduce the plain formula on a small example; `auto` falls back to
    `chunks` where it does not.

    Raises:
        PCDError: `attention` was asked for by name and does not work here.
    """
    return _choose(device.type, dtype, channels, wanted)


@cache
def _choose(device: str, dtype: torch.dtype, channels: int, wanted: str) -> Choice:
    dtype = _product_type(device, dtype)
    name = f"{device}, {str(dtype).removeprefix('torch.')}, {channels} channels"
    if wanted == "reference":
        return Choice("reference", torch.float32, f"asked for, {device}, float32, {channels} channels")
    if wanted == "chunks":
        return Choice("chunks", dtype, f"asked for, {name}")
    if wanted == "auto" and (obstacle := _better_in_chunks(device, dtype, channels)):
        return Choice("chunks", dtype, f"{obstacle}: {name}")
    fault = _fault(device, dtype, channels)
    if fault is None:
        return Choice("attention", dtype, f"{'asked for, ' if wanted == 'attention' else ''}{name}")
    if wanted == "attention":
        raise PCDError(f"loss.backend attention does not work here ({name}): {fault}; set it to auto")
    _log.warning("the loss streams over chunks, since its attention kernel does not work here (%s): %s", name, fault)
    return Choice("chunks", dtype, f"attention does not work, {fault}: {name}")


def _product_type(device: str, dtype: torch.dtype) -> torch.dtype:
    half = dtype in (torch.bfloat16, torch.float16)
    if device == "cuda":
        return dtype if half else torch.float32
    return dtype if device == "cpu" and dtype == autocast_type("auto", torch.device(device)) else torch.float32


def _better_in_chunks(device: str, dtype: torch.dtype, channels: int) -> str | None:
    if device == "cuda":
        return f"more than {_WIDEST_ON_CUDA} channels" if channels > _WIDEST_ON_CUDA else None
    if device != "cpu":
        return "no attention kernel gives its log-sum-exp"
    if dtype != torch.float32:
        return "faster than the attention kernel in half precision"
    return f"more than {_WIDEST_ON_CPU} channels" if channels > _WIDEST_ON_CPU else None


def _fault(device: str, dtype: torch.dtype, channels: int) -> str | None:
    """What is wrong with the attention kernel, held against the plain formula in fp64; None if nothing is."""
    random = torch.Generator().manual_seed(0)  # its own: a run's random state must not depend on the backend
    s, n = (F.normalize(torch.randn(rows, channels, generator=random), dim=1) for rows in (33, 70))  # no round numbers
    tolerance = 1e-4 if dtype == torch.float32 else 2e-2
    try:
        kernel = _attend_by_kernel(s.to(device), n.to(device), 0.2, dtype)
    except RuntimeError as error:  # NotImplementedError is one
        return str(error).strip().splitlines()[0]
    for ours, plain in zip(kernel, _attend_plainly(s.double(), n.double(), 0.2), strict=True):
        distance = (ours.cpu() - plain).abs().max().item()
        if not distance < tolerance:  # NaN too
            return f"it is {distance:.1g} away from the plain formula"
    return None


def attend(s: Tensor, n: Tensor, temperature: float, backend: Backend, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(P, C) and (K, C), fp32 and of unit length, to o (P, C) and z (P,) in fp32. No gradient."""
    with torch.no_grad(), torch.autocast(s.device.type, enabled=False):  # it would choose the products' type for us
        if backend == "attention":
            return _attend_by_kernel(s, n, temperature, dtype)
        if backend == "chunks":
            return _attend_in_chunks(s, n, temperature, dtype)
        return _attend_plainly(s, n, temperature)


def _attend_plainly(s: Tensor, n: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    logits = s @ n.T / temperature  # (P, K)
    return logits.softmax(dim=1) @ n, logits.logsumexp(dim=1)


def _attend_by_kernel(s: Tensor, n: Tensor, temperature: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    channels = s.shape[1]
    if s.device.type != "cpu":
        # CUDA's kernels read 16 bytes at once; channels of zeros change no product.
        s, n = (F.pad(x, (0, -channels % 8)) for x in (s, n))
    groups = _key_groups(len(s), len(n)) if s.device.type == "cpu" else 1
    query = s.to(dtype).expand(groups, 1, *s.shape)  # (groups, 1, P, C)
    keys = n.to(dtype).view(groups, 1, len(n) // groups, -1)  # (groups, 1, K / groups, C)
    out, lse = _kernel(query, keys, 1 / temperature)
    out, lse = (
        out[:, 0, :, :channels].float().contiguous(),
        lse[:, 0, : len(s)].float(),
    )  # some pad the log-sum-exp to 32 queries
    if groups == 1:
        return out[0], lse[0]
    z = lse.logsumexp(dim=0)  # (P,)
    return torch.einsum("gp,gpc->pc", (lse - z).exp(), out), z


def _kernel(query: Tensor, keys: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """The output and the natural log-sum-exp; the keys are the values too."""
    if query.device.type == "cpu":
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(query, keys, keys, scale=scale)
    elif query.device.type != "cuda":
        raise NotImplementedError(f"no attention kernel of {query.device.type} gives its log-sum-exp")
    elif query.dtype != torch.float32 and query.shape[-1] <= _WIDEST_ON_CUDA:
        out, lse, *_ = torch.ops.aten._scaled_dot_product_flash_attention(query, keys, keys, scale=scale)
    else:
        out, lse, *_ = torch.ops.aten._scaled_dot_product_efficient_attention(
            query, keys, keys, attn_bias=None, compute_log_sumexp=True, scale=scale
        )
    return out, lse


def _key_groups(pixels: int, negatives: int) -> int:
    """Into how many groups to split the negatives, so that all threads have work.

    The CPU's kernel shares out blocks of up to 256 queries: 784 pixels are three whole blocks and a bit, and of two
    threads one waits a third of the time.
    """
    threads = torch.get_num_threads()
    few = pixels < 4 * 256 * threads
    return threads if few and negatives % threads == 0 else 1


def _attend_in_chunks(s: Tensor, n: Tensor, temperature: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Over blocks of pixels and chunks of the queue, with a running maximum.

    Logits lie within 1/tau of 0, but at tau = 0.01 already exp(-2/tau) is 0 in fp32, and all negatives may be that far.
    """
    out, z = torch.empty_like(s), s.new_empty(len(s))
    keys = n.to(dtype)
    for first in range(0, len(s), _ROWS):
        rows = slice(first, first + _ROWS)
        queries = (s[rows] / temperature).to(dtype)
        weighted, total = torch.zeros_like(s[rows]), s.new_zeros(len(queries), 1)  # (rows, C), (rows, 1)
        top = s.new_full((len(queries), 1), -torch.inf)
        for chunk in keys.split(_CHUNK):
            logits = _product(queries, chunk.T)  # (rows, chunk)
            higher = torch.maximum(top, logits.amax(dim=1, keepdim=True))
            shrink, weights = (top - higher).exp_(), logits.sub_(higher).exp_()
            total.mul_(shrink).add_(weights.sum(dim=1, keepdim=True))
            weighted.mul_(shrink).add_(_product(weights.to(dtype), chunk))
            top = higher
        out[rows], z[rows] = weighted / total, (total.log() + top)[:, 0]
    return out, z


def _product(a: Tensor, b: Tensor) -> Tensor:
    """In fp32; of half-precision factors CUDA keeps the fp32 sums, and the CPU rounds them on their way out."""
    if a.dtype == torch.float32:
        return a @ b
    return torch.mm(a, b, out_dtype=torch.float32) if a.device.type == "cuda" else torch.mm(a, b).float()
