"""A probe of frozen features as a stage process: `python -m eval.probes.probe SPEC`.

Reads `inputs.features` (see eval.probes.features); without them, as under eval.watch, what that stage reads, and
computes them first. Writes metrics.jsonl, checkpoints while it runs, and result.json with top-1 and top-5 accuracy. It
runs on one device: the features are small enough, and a step is short.
"""

import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

import torch

from eval.probes.features import freeze
from eval.probes.frozen import FrozenFeatures, read_features
from eval.probes.linear import linear_probe
from eval.probes.low_shot import low_shot_probe
from eval.probes.settings import DEPARTURES, KnnSettings, ProbeSettings, probe_settings
from eval.protocols import departures
from pcd.distributed import process_group
from pcd.errors import PCDError
from pcd.gpu_memory import peak_gpu_memory
from pcd.knn import knn_top1
from pcd.stage import Spec, run_stage

__all__ = ["probe"]


def probe(spec: Spec) -> dict[str, Any]:
    settings, seed = probe_settings(spec.settings["probe"]), spec.settings["seed"]
    print(_told(settings))
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


def _told(settings: ProbeSettings) -> str:
    """How it departs from the protocol that it is named after, for the log."""
    if settings.base is None:
        return "protocol: the profile's own"
    changes = ", ".join(f"{name} {here} (named: {named})" for name, named, here in departures(settings))
    return f"protocol: {settings.base}, {f'but {changes}' if changes else 'as named'}"


def _knn_probe(spec: Spec, settings: KnnSettings, frozen: FrozenFeatures, _seed: int) -> dict[str, Any]:
    spec.activity("voting", 0, 1)
    parts = (frozen.train, frozen.train_labels, frozen.val, frozen.val_labels)
    metrics = {"knn_top1": knn_top1(*parts, settings.neighbours, settings.temperature)}
    spec.metrics.drop_after(0)
    spec.metrics.log(1, 1, metrics)
    return {"metrics": metrics}


_PROBES: Final[Mapping[str, Callable[[Spec, Any, FrozenFeatures, int], dict[str, Any]]]] = {
    "linear": linear_probe, "knn": _knn_probe, "low_shot": low_shot_probe,
}  # fmt: skip


if __name__ == "__main__":
    sys.exit(run_stage(probe))
