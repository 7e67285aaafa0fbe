"""The devices that stages can be given: GPUs as the driver knows them, within CUDA_VISIBLE_DEVICES, else CPU slots."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pcd.cores import usable_cores
from pcd.errors import PCDError

__all__ = ["Inventory", "find_devices", "list_gpus", "visible_gpus"]


@dataclass(frozen=True, slots=True)
class Inventory:
    """What there is for us on this machine."""

    names: tuple[str, ...]
    """Unique on the machine and the same in every process: GPU-…, MIG-…, cpu0."""
    visible: tuple[str, ...]
    """What CUDA_VISIBLE_DEVICES calls each of them; empty strings for slots of the CPU."""
    cores: int
    """CPU cores that we may use."""

    @property
    def has_gpus(self) -> bool:
        return any(self.visible)


def find_devices(device: Literal["auto", "cpu", "cuda"], slots: int) -> Inventory:
    """GPUs, if `device` asks for them and there are any; else `slots` slots of the CPU.

    Raises PCDError if `device` is "cuda" and we see no GPU.
    """
    if device != "cpu":
        gpus = visible_gpus(list_gpus(), os.environ.get("CUDA_VISIBLE_DEVICES"))
        if gpus:
            return Inventory(tuple(name for name, _ in gpus), tuple(token for _, token in gpus), usable_cores())
        if device == "cuda":
            raise PCDError("this machine has no GPU that we may use (see CUDA_VISIBLE_DEVICES); set runtime.device=cpu")
    return Inventory(tuple(f"cpu{slot}" for slot in range(slots)), ("",) * slots, usable_cores())


def visible_gpus(gpus: Sequence[str], visible: str | None) -> list[tuple[str, str]]:
    """(unique name, CUDA's name) of each GPU that CUDA would show.

    Args:
        gpus: unique names, in the order of the PCI bus.
        visible: CUDA_VISIBLE_DEVICES, if it is set: numbers, unique names or beginnings of them. As in CUDA, the first
            name that fits no GPU ends the list.
    """
    if visible is None:
        return [(name, name) for name in gpus]
    found: list[tuple[str, str]] = []
    for token in (part.strip() for part in visible.split(",")):
        if token.isdecimal() and int(token) < len(gpus):
            name = gpus[int(token)]
        else:
            name = next((gpu for gpu in gpus if len(token) > 4 and gpu.startswith(token)), "")
        if not name or name in (taken for taken, _ in found):
            break
        found.append((name, token))
    return found


def list_gpus() -> list[str]:
    """Unique names (UUIDs) in the order of the PCI bus; of a GPU that is partitioned, of its parts. Without CUDA."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:  # no driver
        return []
    try:
        names: list[str] = []
        for number in range(pynvml.nvmlDeviceGetCount()):
            gpu = pynvml.nvmlDeviceGetHandleByIndex(number)
            names += _parts(pynvml, gpu) or [pynvml.nvmlDeviceGetUUID(gpu)]
        return names
    finally:
        pynvml.nvmlShutdown()


def _parts(nvml: Any, gpu: Any) -> list[str]:
    parts = []
    try:
        for number in range(nvml.nvmlDeviceGetMaxMigDeviceCount(gpu)):
            part = nvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, number)
            parts.append(str(nvml.nvmlDeviceGetUUID(part)))
    except nvml.NVMLError:  # not partitioned, or no further part
        pass
    return parts
