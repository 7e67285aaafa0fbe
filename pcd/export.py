"""The student's backbone as files: safetensors with its library's tensor names, and what Detectron2 reads."""

import re
from pathlib import Path
from typing import Final

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from pcd.errors import PCDError
from pcd.tensor_file import write_tensors

__all__ = [
    "DETECTRON2_RESNETS", "export_backbone", "export_for_detectron2", "load_backbone", "load_exactly",
    "metadata_of", "to_detectron2_name",
]  # fmt: skip

DETECTRON2_RESNETS: Final = {"resnet18": (18, 64), "resnet34": (34, 64), "resnet50": (50, 256)}
"""The students that are Detectron2's ResNets too: its DEPTH and RES2_OUT_CHANNELS (with STRIDE_IN_1X1 False)."""

_RULES: Final = (
    (re.compile(r"^conv1\."), "stem.conv1."),
    (re.compile(r"^bn1\."), "stem.conv1.norm."),
    (re.compile(r"^layer(\d)\."), lambda m: f"res{int(m[1]) + 1}."),
    (re.compile(r"\.bn(\d)\."), r".conv\1.norm."),
    (re.compile(r"\.downsample\.0\."), ".shortcut."),
    (re.compile(r"\.downsample\.1\."), ".shortcut.norm."),
)


def to_detectron2_name(name: str) -> str:
    """layer2.0.downsample.1.weight (torchvision) -> res3.0.shortcut.norm.weight (Detectron2)."""
    for pattern, replacement in _RULES:
        name = pattern.sub(replacement, name)
    return name


def export_backbone(backbone: nn.Module, path: Path, metadata: dict[str, str]) -> None:
    """Write every tensor of `backbone` under its own name; whole or not at all."""
    write_tensors(path, backbone.state_dict(), metadata)


def export_for_detectron2(backbone: nn.Module, path: Path) -> None:
    """Write a ResNet as `MODEL.WEIGHTS` of a Detectron2 configuration, C4 or FPN; `path` ends in .pth.

    Without a prefix: Detectron2's name matching, which the file asks for, finds the place in the detector. The counters
    of BatchNorm stay out, since its frozen BatchNorm has none and its others do not need them.
    """
    tensors = {
        to_detectron2_name(name): tensor.detach().cpu().contiguous()
        for name, tensor in backbone.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    temporary = path.with_name(f".{path.name}.part")
    torch.save({"model": tensors, "__author__": "pcd", "matching_heuristics": True}, temporary)
    temporary.replace(path)


def metadata_of(path: Path) -> dict[str, str]:
    """What a safetensors file says of itself; of an export of ours, `student` and `objective`."""
    with safe_open(path, framework="pt") as file:
        return file.metadata() or {}


def load_backbone(path: Path, student: str | None = None) -> dict[str, Tensor]:
    """Tensors by name. Raises PCDError if the file is missing or damaged, or says that it is of another student."""
    try:
        tensors, told = load_file(path), metadata_of(path).get("student")
    except Exception as error:  # safetensors raises its own type, and OSError
        raise PCDError(f"backbone file {path} cannot be read ({error}); run its pre-training again") from None
    if student is not None and told not in (None, student):
        raise PCDError(f"backbone file {path} is of the student {told}, not of {student}; run its pre-training again")
    return tensors


def load_exactly(backbone: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Load every tensor in place. Raises PCDError if one is missing, left over or of another shape."""
    try:
        backbone.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip()
        raise PCDError(f"the backbone file does not fit: {first}; was it pre-trained with another student?") from None
