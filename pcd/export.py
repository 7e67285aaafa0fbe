"""The student's backbone as a safetensors file with torchvision's tensor names."""

from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pcd.errors import PCDError

__all__ = ["export_backbone", "load_backbone", "load_exactly"]


def export_backbone(backbone: nn.Module, path: Path, metadata: dict[str, str]) -> None:
    """Write every tensor of `backbone`; whole or not at all."""
    temporary = path.with_name(f".{path.name}.part")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in backbone.state_dict().items()}
    save_file(tensors, temporary, metadata={"format": "pt", **metadata})
    temporary.replace(path)


def load_backbone(path: Path) -> dict[str, Tensor]:
    """Tensors by name. Raises PCDError if the file is missing or damaged."""
    try:
        return load_file(path)
    except Exception as error:  # safetensors raises its own type, and OSError
        raise PCDError(f"backbone file {path} cannot be read ({error}); run its pre-training again") from None


def load_exactly(backbone: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Load every tensor in place. Raises PCDError if one is missing, left over or of another shape."""
    try:
        backbone.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip()
        raise PCDError(f"the backbone file does not fit: {first}; was it pre-trained with another student?") from None
