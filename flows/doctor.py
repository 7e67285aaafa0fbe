"""`pcd doctor`: does this installation do what a benchmark needs of it?"""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from flows.environment import describe_environment
from flows.home import home

__all__ = ["Finding", "examine"]

_NEEDED_GB = 2
_OPERATORS = """
import torch
import eval.detectron
from detectron2.layers import ROIAlign, batched_nms
boxes = torch.tensor([[0.0, 0.0, 8.0, 8.0], [0.0, 0.0, 8.0, 7.0], [8.0, 8.0, 16.0, 16.0]])
kept = batched_nms(boxes, torch.tensor([0.9, 0.8, 0.7]), torch.zeros(3), 0.5)
assert kept.tolist() == [0, 2], kept
maps = ROIAlign(7, 0.5, 0)(torch.ones(1, 4, 16, 16), torch.tensor([[0.0, 0.0, 0.0, 8.0, 8.0]]))
assert maps.shape == (1, 4, 7, 7) and torch.allclose(maps, torch.ones(1)), maps
"""


@dataclass(frozen=True, slots=True)
class Finding:
    good: bool
    what: str


def examine() -> list[Finding]:
    """Versions as installed; Detectron2's operators by running them."""
    environment = describe_environment()
    packages = [
        Finding(version is not None, f"{name} {version or 'is not installed; run `make setup`'}")
        for name, version in environment["packages"].items()
    ]
    machine = f"{environment['cores']} cores, {environment['memory_gb']} GB, GPUs: {environment['gpus'] or 'none'}"
    return [Finding(True, f"Python {environment['python']}; {machine}"), *packages, _operators(), _space()]


def _operators() -> Finding:
    path = str(Path(__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", _OPERATORS], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    if done.returncode == 0:
        return Finding(True, "Detectron2's RoIAlign and NMS run and give the right answers")
    reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
    return Finding(False, f"Detectron2's RoIAlign or NMS does not run: {reason}; run `make setup`")


def _space() -> Finding:
    place = next(folder for folder in (home(), *home().parents) if folder.exists())
    free = shutil.disk_usage(place).free / 2**30
    enough = free >= _NEEDED_GB
    return Finding(enough, f"{free:.0f} GB free for {home()}" + ("" if enough else f"; the demo needs {_NEEDED_GB}"))
