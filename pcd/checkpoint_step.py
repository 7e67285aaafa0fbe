"""checkpoint.json beside a checkpoint: its step, for readers that should not load tensors (or torch) to know it."""

import json
from pathlib import Path
from typing import Final

__all__ = ["SIDECAR", "checkpoint_step"]

SIDECAR: Final = "checkpoint.json"


def checkpoint_step(work: Path) -> int | None:
    """The step of the last checkpoint in a stage's folder, or None. Written behind it, this may lag by one."""
    try:
        return int(json.loads((work / SIDECAR).read_text())["step"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
