"""Ranks, which work alone too: without `torchrun` this is rank 0 of 1."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from pcd.errors import PCDError
from pcd.stage import Finished, Stopped

__all__ = [
    "any_rank",
    "gather",
    "gather_objects",
    "mean_over_ranks",
    "process_group",
    "rank",
    "sum_over_ranks",
    "world_size",
]

_T = TypeVar("_T")


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


@contextmanager
def process_group(device: str, *, found_result: bool = False) -> Iterator[torch.device]:
    """Join the ranks that `torchrun` started, if it did, and yield this rank's device.

    Args:
        device: "cpu", "cuda", or "auto" for CUDA where there is one.
        found_result: `Spec.found_result`. What the first rank found the others may not have seen yet, or no longer
            wait for it: so it is told once all are here.

    Raises Finished on every rank if one of them found a result.
    """
    use_cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    if use_cuda and int(os.environ.get("LOCAL_RANK", "0")) >= torch.cuda.device_count():
        raise PCDError(
            f"this machine has {torch.cuda.device_count()} CUDA devices; lower runtime.processes, "
            "or set runtime.device to cpu"
        )
    local = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if use_cuda else torch.device("cpu")
    if use_cuda:
        torch.cuda.set_device(local)
    if "WORLD_SIZE" not in os.environ:
        yield local
        return
    dist.init_process_group("nccl" if use_cuda else "gloo")
    if any(any_rank([found_result], local)):
        dist.destroy_process_group()
        raise Finished
    try:
        yield local
    except Stopped:  # all ranks stop in the same step
        dist.destroy_process_group()
        raise
    # Not behind any other error: the ranks that did not meet it may wait in a collective, and destroying the group
    # would wait for them. The process ends, and torchrun ends the others.
    dist.destroy_process_group()


def gather(x: Tensor) -> Tensor:
    """(N, …) of every rank, stacked in the order of ranks: (world * N, …). No gradient."""
    if world_size() == 1:
        return x
    parts = [torch.empty_like(x) for _ in range(world_size())]
    dist.all_gather(parts, x.contiguous())
    return torch.cat(parts)


def gather_objects(x: _T) -> list[_T]:
    """`x` of every rank, in the order of ranks."""
    if world_size() == 1:
        return [x]
    parts: list[Any] = [None] * world_size()
    dist.all_gather_object(parts, x)
    return parts


def sum_over_ranks(x: Tensor) -> Tensor:
    """A new tensor, without gradient."""
    total = x.detach().clone()
    if world_size() > 1:
        dist.all_reduce(total)
    return total


def mean_over_ranks(x: Tensor) -> Tensor:
    """A new tensor, without gradient."""
    return sum_over_ranks(x) / world_size()


def any_rank(flags: Sequence[bool], device: torch.device) -> list[bool]:
    """Each flag: true on every rank if it is on one of them. What one rank met, all must act on in the same step."""
    if world_size() == 1:
        return list(flags)
    told = torch.tensor([int(flag) for flag in flags], device=device)
    dist.all_reduce(told, op=dist.ReduceOp.MAX)
    return [bool(flag) for flag in told.tolist()]
