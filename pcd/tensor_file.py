"""Tensors as a safetensors file: whole or not at all, and with a full disk told as one."""

import re
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

__all__ = ["write_tensors"]


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write `tensors` under their names, of any device and layout; whoever may read the folder may read the file.

    Raises OSError where the system does not take it.
    """
    temporary = path.with_name(f".{path.name}.part")
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(contiguous, temporary, {"format": "pt", **metadata})
    except SafetensorError as error:
        # It hides the system's errors; a full disk must stay recognisable as one.
        number = re.search(r"os error (\d+)", str(error))
        raise (OSError(int(number[1]), str(error), str(path)) if number else error) from None
    temporary.chmod(0o644)  # safetensors leaves it to its owner alone, and others may share the store
    temporary.replace(path)
