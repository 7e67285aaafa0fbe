"""A probe of frozen features as a stage process: `python -m eval.probes.probe SPEC`.

Reads `inputs.features` (see eval.probes.features); without them, as under eval.watch, what that stage reads, and
computes them first. Writes metrics.jsonl, checkpoints while it runs, and result.json with top-1 and top-5 accuracy. It
runs on one device: the features are small enough, and a step is short.
"""

import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

import torch

from eval.departures import departures, protocol_line
from eval.probes.features import freeze
from eval.probes.frozen import FrozenFeatures, read_features
from eval.probes.linear import linear_probe
from eval.probes.low_shot import low_shot_probe
from eval.probes.settings import DEPARTURES, KnnSettings, probe_settings
from pcd.distributed import process_group
from pcd.errors import PCDError
from pcd.gpu_memory import peak_gpu_memory
from pcd.knn import knn_top1
from pcd.stage import Spec, run_stage

__all__ = ["probe"]

_AT_ONCE: Final = 1024
"""Test images that are voted on before progress is told; pcd.knn takes as many at once, or fewer."""


def probe(spec: Spec) -> dict[str, Any]:
    settings, seed = probe_settings(spec.settings["probe"]), spec.settings["seed"]
    print(protocol_line(settings))
    torch.set_num_threads(spec.runtime["threads"])
    with process_group(spec.runtime["device"]) as device:
        frozen, record = (
            (read_features(spec.inputs["features"]), {}) if "features" in spec.inputs else freeze(spec, device)
        )
        assert frozen is not None  # there is one rank
        for name, labels in (("training", frozen.train_labels), ("test", frozen.val_labels)):
            if not len(labels):
                raise PCDError(f"there are no features of {name} images; check the set, and run their stage again")
        found = _PROBES[settings.kind](spec, settings, frozen.to(device), seed)
    images = {"train": len(frozen.train), "val": len(frozen.val), "classes": len(frozen.classes)}
    protocol = {"name": settings.base, "difference": departures(settings)}
    told = {"protocol": protocol, "departures": list(DEPARTURES[settings.kind])}
    return {**found, **record, **images, **told, **peak_gpu_memory(device)}


def _knn_probe(spec: Spec, settings: KnnSettings, frozen: FrozenFeatures, _seed: int) -> dict[str, Any]:
    right, total = 0, len(frozen.val)
    for first in range(0, total, _AT_ONCE):
        spec.activity("voting", first, total)
        part = slice(first, first + _AT_ONCE)
        queries, labels = frozen.val[part], frozen.val_labels[part]
        top1 = knn_top1(frozen.train, frozen.train_labels, queries, labels, settings.neighbours, settings.temperature)
        right += round(top1 * len(queries) / 100)
    metrics = {"knn_top1": 100 * right / total}
    spec.metrics.drop_after(0)
    spec.metrics.log(1, 1, metrics)
    return {"metrics": metrics}


_PROBES: Final[Mapping[str, Callable[[Spec, Any, FrozenFeatures, int], dict[str, Any]]]] = {
    "linear": linear_probe, "knn": _knn_probe, "low_shot": low_shot_probe,
}  # fmt: skip


if __name__ == "__main__":
    sys.exit(run_stage(probe))
