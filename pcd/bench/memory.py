"""Peak extra memory of one call: `compare_memory`, and the fresh process that measures it."""

import importlib
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch

from pcd.bench.harness import Row, Work

__all__ = ["available_memory", "compare_memory", "peak_extra_memory"]

_MIB = 2**20


def compare_memory(
    name: str, prepare: Callable[..., Work], ours: dict[str, Any], baseline: dict[str, Any], *, note: str = ""
) -> Row:
    """MiB that one call of `prepare(**ours)()` and `prepare(**baseline)()` take beyond what was there before."""
    first, second = (peak_extra_memory(prepare, arguments) / _MIB for arguments in (ours, baseline))
    return Row(name, first, second, "MiB", second / first if first else float("inf"), note=note)


def peak_extra_memory(prepare: Callable[..., Work], arguments: dict[str, Any]) -> int:
    """Bytes, in a process of its own: what an allocator kept from earlier calls would hide the need.

    Args:
        prepare: a function of a module; it builds the inputs and returns the call to be measured.
        arguments: its keywords, as JSON takes them; `device` says which memory is meant.
    """
    command = [sys.executable, "-m", __name__, prepare.__module__, prepare.__qualname__, json.dumps(arguments)]
    # A fixed threshold gives every tensor its own mapping, which goes back to the system when the tensor does.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": str(torch.get_num_threads())}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return int(done.stdout)


def available_memory() -> int:
    """Bytes that can be taken without swapping."""
    return int(psutil.virtual_memory().available)


def _measure(prepare: Callable[..., Work], arguments: dict[str, Any]) -> int:
    work = prepare(**arguments)
    if str(arguments.get("device", "cpu")).startswith("cuda"):
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    before = _reset_peak()
    work()
    return max(0, _peak() - before)


def _reset_peak() -> int:
    """Forget the inputs' making, where the kernel lets us; resident bytes now."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return _peak()  # a lower bound then: a set-up that took more hides as much
    return _status("VmRSS")


def _peak() -> int:
    if Path("/proc/self/status").exists():
        return _status("VmHWM")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":"))


if __name__ == "__main__":
    module, function, keywords = sys.argv[1:]
    print(_measure(getattr(importlib.import_module(module), function), json.loads(keywords)))
