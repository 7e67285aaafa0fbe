"""features.safetensors: what a frozen backbone makes of the images of a labelled set."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import torch
from safetensors import safe_open
from torch import Tensor

from pcd.errors import PCDError
from pcd.tensor_file import write_tensors

__all__ = ["FrozenFeatures", "read_features", "write_features"]

_FILE: Final = "features.safetensors"


@dataclass(frozen=True, slots=True)
class FrozenFeatures:
    train: Tensor
    """(N, C) fp32: the backbone's deepest map, averaged over its pixels; not normalised."""
    train_labels: Tensor
    """(N,) int64, places in `classes`."""
    val: Tensor
    """(M, C)."""
    val_labels: Tensor
    """(M,)."""
    classes: tuple[str, ...]

    def to(self, device: torch.device) -> "FrozenFeatures":
        moved = {name: getattr(self, name).to(device) for name in ("train", "train_labels", "val", "val_labels")}
        return replace(self, **moved)


def write_features(folder: Path, features: FrozenFeatures) -> None:
    """Whole or not at all."""
    tensors = {name: getattr(features, name) for name in ("train", "train_labels", "val", "val_labels")}
    write_tensors(folder / _FILE, tensors, {"classes": json.dumps(features.classes)})


def read_features(folder: Path) -> FrozenFeatures:
    """What the stage `features` left. Raises PCDError if it is missing or damaged."""
    path = folder / _FILE
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in ("train", "train_labels", "val", "val_labels")}
            classes: Sequence[str] = json.loads(file.metadata()["classes"])
    except Exception as error:  # safetensors raises its own type, and OSError
        reason = str(error).splitlines()[0]
        raise PCDError(f"features {path} cannot be read ({reason}); run their stage again") from None
    return FrozenFeatures(**tensors, classes=tuple(classes))
