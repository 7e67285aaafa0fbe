"""Names for machines that take equally long: figures of one hardware class say nothing of another."""

import ctypes
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flows.environment import processor
from flows.settings import Runtime
from flows.supervision.inventory import list_gpus, visible_gpus
from pcd.cores import usable_cores

__all__ = ["Hardware", "hardware_here", "hardware_of"]


@dataclass(frozen=True, slots=True)
class Hardware:
    """What a training stage gets."""

    name: str
    """Its class, or what is assumed where this machine has no such device."""
    is_gpu: bool
    units: int
    """GPUs of all machines together, or CPU threads."""
    is_here: bool
    """False: settings ask for GPUs, and this machine has none; the run will be elsewhere."""


def _class(gpus: int, gpu: str, threads: int, cpu: str) -> str:
    return f"{gpus} x {gpu}" if gpus else f"{threads} thread{'s' * (threads > 1)} of {cpu}"


def hardware_here(runtime: Runtime, *, distributed: bool = True, on_device: bool = False) -> Hardware:
    """The class of this machine for a stage under `runtime`.

    Stages that are not distributed run on the CPU, or, if they are `on_device`, on one GPU.
    """
    ranks = runtime.processes * runtime.nodes if distributed else 1
    if (distributed or on_device) and runtime.device != "cpu":
        if _has_driver() and (gpus := visible_gpus(list_gpus(), os.environ.get("CUDA_VISIBLE_DEVICES"))):
            return Hardware(_class(ranks, _gpu_model(gpus[0][0]), 0, ""), is_gpu=True, units=ranks, is_here=True)
        if runtime.device == "cuda":
            return Hardware(f"{ranks} GPUs, not on this machine", is_gpu=True, units=ranks, is_here=False)
    threads = _threads(runtime, runtime.processes if distributed else 1)
    return Hardware(_class(0, "", threads, processor()), is_gpu=False, units=threads, is_here=True)


def _threads(runtime: Runtime, processes: int) -> int:
    """Of a stage's process, as flows.supervision.devices leases them."""
    slots = min(processes, runtime.parallel)
    return runtime.threads or max(1, usable_cores() * slots // runtime.parallel // processes)


def hardware_of(environment: Mapping[str, Any], devices: tuple[str, ...], threads: int) -> str:
    """The class of a stage that ran: `devices` as it leased them, `threads` as its spec had them."""
    gpus = [name for name in devices if not name.startswith("cpu")]
    return _class(len(gpus), _gpu_model(gpus[0]) if gpus else "", threads, str(environment.get("processor")))


def _has_driver() -> bool:
    """Quicker than to import NVML's bindings, which take a quarter of a second, and be told that there is none."""
    try:
        ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return False
    return True


def _gpu_model(name: str) -> str:
    """Of the GPU, or part of one, with this unique name: a machine may have several models."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return "GPU"
    try:
        return str(pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByUUID(name)))
    except pynvml.NVMLError:
        return "GPU"
    finally:
        pynvml.nvmlShutdown()
