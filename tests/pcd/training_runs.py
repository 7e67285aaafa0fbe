"""Tiny runs of the pre-training, and what tests compare of them. The fixtures that make them are in conftest.py."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from pcd.export import load_backbone
from pcd.settings import StageRuntime
from pcd.stage import Metrics, Spec, Stopped
from pcd.train import pretrain

TINY: dict[str, Any] = {
    "epochs": 2,
    "global_batch": 8,
    "precision": "fp32",
    "views": {"size": 32},
    "loss": {"negatives": 60},  # no multiple of the batch
    "optimizer": {"warmup_epochs": 1},
}
"""Two epochs of three steps over the 24 images of the pool."""

Finished = tuple[Path, dict[str, Any]]
"""Where a run went, and what it returned."""


def tiny_settings(**pretraining: Any) -> dict[str, Any]:
    """Keywords are settings of the pre-training that differ."""
    return {"pretrain": TINY | pretraining, "teacher": "demo", "seed": 0}


def tiny_spec(out: Path, inputs: Mapping[str, Path]) -> Spec:
    """For fixtures that outlive a test."""
    return Spec(
        stage="pretrain",
        title="pretrain",
        settings=tiny_settings(),
        inputs=dict(inputs),
        out=out,
        runtime=StageRuntime(device="cpu", threads=1, workers=0, log_every=1, checkpoint_seconds=3600).model_dump(),
        metrics=Metrics(out / "metrics.jsonl"),
    )


class StopsBehind(Metrics):
    """Asks the run to stop when a step is done, as a signal would."""

    def __init__(self, spec: Spec, step: int) -> None:
        super().__init__(spec.metrics.path)
        self.spec, self.step = spec, step

    def log(self, step: int, total: int, values: Mapping[str, float] | None = None) -> None:
        super().log(step, total, values)
        self.spec.stop_requested = step == self.step


def interrupt(spec: Spec, step: int) -> None:
    """Run up to the end of `step`, and leave the spec fit for going on."""
    spec.metrics = StopsBehind(spec, step)
    with pytest.raises(Stopped):
        pretrain(spec)
    spec.metrics, spec.stop_requested = Metrics(spec.metrics.path), False


def metrics(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def losses(out: Path) -> list[float]:
    return [line["loss"] for line in metrics(out)]


def backbones_equal(first: Path, second: Path) -> bool:
    """Bit for bit."""
    one, other = (load_backbone(out / "backbone.safetensors") for out in (first, second))
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
