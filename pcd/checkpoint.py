"""Checkpoints that are whole or absent; the newest ones are kept, and a damaged one gives way to the one before.

checkpoint.json beside them holds the step of the newest ({"step": n}), for readers that load no tensors.
"""

import os
from pathlib import Path
from typing import Any

import torch

from pcd.checkpoint_step import SIDECAR
from pcd.errors import PCDError
from pcd.stage import write_json

__all__ = ["load_checkpoint", "save_checkpoint", "save_whole"]


def save_whole(path: Path, state: dict[str, Any]) -> None:
    """Write beside `path`, flush to the disk, rename over it: a kill at any moment leaves a whole file, or none."""
    _write(path, state).replace(path)


def save_checkpoint(path: Path, state: dict[str, Any], keep: int = 1) -> None:
    """As save_whole, and the checkpoints before are kept; then its step is told in checkpoint.json.

    Args:
        state: plain data and tensors, with the number of steps done as `step`.
        keep: how many there are at most; the one before `checkpoint.pt` becomes `checkpoint.1.pt`, and so on.
    """
    temporary = _write(path, state)
    for age in range(keep - 1, 0, -1):  # the oldest is overwritten first
        if (newer := _place(path, age - 1)).exists():
            newer.replace(_place(path, age))
    temporary.replace(path)
    write_json(path.with_name(SIDECAR), {"step": state["step"]})


def _write(path: Path, state: dict[str, Any]) -> Path:
    temporary = path.with_name(f".{path.name}.part")
    with temporary.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    return temporary


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """The newest state that can be read, on the CPU, or None if none was ever saved.

    Raises PCDError if all that there are are damaged.
    """
    damaged = None
    for place in (path, *sorted(path.parent.glob(f"{path.stem}.*{path.suffix}"))):
        if not place.exists():
            continue
        try:
            state: dict[str, Any] = torch.load(place, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many types for a damaged file
            damaged = f"checkpoint {place} is damaged ({type(error).__name__})"
            print(f"{damaged}; looking for an older one")
            continue
        return state
    if damaged:
        raise PCDError(f"{damaged}, and there is no older one; delete it to start anew")
    return None


def _place(path: Path, age: int) -> Path:
    return path if age == 0 else path.with_name(f"{path.stem}.{age}{path.suffix}")
