"""The loss's backends against the plain formula, forward and backward: time and peak extra memory.

The sizes are the method's: a queue of 65,536 vectors of 256 channels, and 784 pixels (16 images of 7 x 7) or 6,272
(128 images). The baseline is `reference_pixel_contrastive_loss`, with its (P, K + 1) logits.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F

from pcd.bench.harness import Row, Skipped, Work, compare_times
from pcd.bench.memory import available_memory, compare_memory
from pcd.loss import pixel_contrastive_loss
from pcd.loss_backends import Backend, choose_backend

__all__ = ["loss_suite", "prepare_loss"]

_METHOD: dict[str, Any] = {"negatives": 65536, "channels": 256}
_WIDTHS = (64, 100, 128, 256, 2048, 8192)
_COPIES = 4
"""Tensors of pixels x negatives that the plain formula holds at once at its peak."""


def prepare_loss(
    *, images: int, negatives: int, channels: int, backend: Backend | str, device: str, dtype: str = "float32"
) -> Work:
    """One forward and backward pass over maps of 7 x 7 pixels, with a queue of unit vectors."""
    work = _pass(images, negatives, channels, backend, device, dtype)
    _pass(1, 64, channels, backend, device, dtype)()  # libraries are loaded and the kernel is checked before the count
    return work


def _pass(images: int, negatives: int, channels: int, backend: str, device: str, dtype: str) -> Work:
    kind = getattr(torch, dtype)
    maps = torch.randn(2, images, channels, 7, 7, device=device, dtype=kind)
    student, teacher = maps[0].clone().requires_grad_(), maps[1]
    queue = F.normalize(torch.randn(negatives, channels, device=device), dim=1)

    def work() -> None:
        student.grad = None
        pixel_contrastive_loss(student, teacher, queue, 0.2, backend=backend).backward()  # type: ignore[arg-type]

    return work


def loss_suite(device: torch.device) -> Iterator[Row | Skipped]:
    yield from _against_the_plain_formula(device)
    yield from _widths(device)


def _against_the_plain_formula(device: torch.device) -> Iterator[Row | Skipped]:
    for images, repeats in ((16, 7), (128, 3)):
        for backend, dtype in (("auto", "float32"), ("chunks", "float32"), ("auto", "bfloat16")):
            if images > 16 and (backend, dtype) != ("auto", "float32"):
                continue
            name = f"loss, {49 * images} pixels, {dtype}, {backend}"
            if reason := _too_large(49 * images, device):
                yield Skipped(name, reason)
                continue
            sizes = _METHOD | {"images": images, "device": device.type, "dtype": dtype}
            ours, baseline = sizes | {"backend": backend}, sizes | {"backend": "reference"}
            note = choose_backend(device, getattr(torch, dtype), sizes["channels"], backend).reason  # type: ignore[arg-type]
            yield compare_times(
                f"{name}: time", prepare_loss(**ours), prepare_loss(**baseline), device, repeats=repeats, note=note
            )
            if (backend, dtype) == ("auto", "float32"):
                yield compare_memory(f"{name}: memory", prepare_loss, ours, baseline, note=note)


def _too_large(pixels: int, device: torch.device) -> str | None:
    needed = _COPIES * 4 * pixels * _METHOD["negatives"]
    there = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else available_memory()
    if there > needed:
        return None
    return f"the plain formula needs {needed / 2**30:.0f} GiB, {there / 2**30:.0f} are free"


def _widths(device: torch.device) -> Iterator[Row]:
    """The attention kernel against chunks by channels: where to switch, see `pcd.loss_backends`."""
    for channels in _WIDTHS:
        sizes: dict[str, Any] = {"images": 16, "negatives": 4096, "channels": channels, "device": device.type}
        attention, chunks = (prepare_loss(**sizes, backend=backend) for backend in ("attention", "chunks"))
        yield compare_times(f"attention against chunks, {channels} channels", attention, chunks, device, repeats=5)
