"""Checkpoints that are whole or absent."""

import os
from pathlib import Path
from typing import Any

import torch

from pcd.errors import PCDError

__all__ = ["load_checkpoint", "save_checkpoint"]


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write beside `path`, flush to the disk, rename over it: a kill at any moment leaves the old one or the new."""
    temporary = path.with_name(f".{path.name}.part")
    with temporary.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """The state that was saved, on the CPU, or None if there is none. Raises PCDError on a damaged file."""
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types for a damaged file
        raise PCDError(f"checkpoint {path} is damaged ({type(error).__name__}); delete it to start anew") from None
    return state
