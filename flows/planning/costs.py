"""How long a stage takes and what it needs: work by formulas, speed by what this machine measured, or stated defaults.

Of measurements on the same hardware, those of equal work come first; then those of the nearest work of the same kind,
scaled. Without any, the defaults below hold, and every figure says so.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log
from pathlib import Path
from statistics import median
from typing import Any, Final, Literal

from flows.json_object import json_object
from flows.planning.hardware import Hardware, hardware_here, hardware_of
from flows.planning.measurements import Measurement, measure, read_measurements, write_measurement
from flows.planning.stage_work import Circumstances, Images, Work, circumstances, work_of
from flows.planning.stages import Plan, Stage

__all__ = ["Basis", "CostModel", "Estimate", "remember"]

_log = logging.getLogger(__name__)

Basis = Literal["measured", "scaled", "default"]
"""`measured`: equal work on equal hardware; `scaled`: from other work on equal hardware; `default`: as stated here."""

_GMACS_A_SECOND: Final = {
    (
        "gpu",
        "pretrain",
    ): 15_000.0,  # of an A100-class GPU: ResNet-50 trains at about 2,500 images/s, 12.3 GMAC each, halved
    ("gpu", "watch"): 5_000.0,
    ("gpu", "finetune"): 5_000.0,  # Detectron2's zoo: 0.26 s a step of 16 images on 8 V100, R50-FPN 1x: 5,900 each
    ("cpu", "pretrain"): 40.0,  # a thread; docs/bench.md: 403 GMAC in 2.71 s on 2 cores with bf16: 75 each
    ("cpu", "watch"): 15.0,
    ("cpu", "finetune"): 15.0,
    ("gpu", "features"): 15_000.0,
    ("cpu", "features"): 40.0,
    ("gpu", "probe"): 2_000.0,  # small products, and each step waits for the one before
    ("cpu", "probe"): 20.0,
}
"""Per GPU or CPU thread."""
_STEP_OVERHEAD: Final = {"gpu": 0.02, "cpu": 0.05}
_IMAGE_OVERHEAD: Final = {"gpu": 0.0007, "cpu": 0.01}
"""Decoding, which the loading processes of a machine with GPUs share."""
_COUNTED_IN_GMACS: Final = ("watch", "finetune", "probe")
"""Kinds of stages of which `other` is an evaluation's."""
_START_SECONDS: Final = {
    "teacher": 5.0,
    "data": 3.0,
    "pretrain": 8.0,
    "watch": 10.0,
    "backbone": 5.0,
    "finetune": 10.0,
    "features": 6.0,
    "probe": 5.0,
    "aggregate": 8.0,
}
"""Imports, and for pre-training the export and its pictures."""
_OTHER_SECONDS: Final = {
    "teacher": 0.1,
    "data shapes": 0.002,
    "data coco": 0.00005,
    "aggregate": 0.2,
    "pretrain": 5.0,
    "backbone": 0.1,
    "features": 1.0,
}
"""Of a megabyte fetched at 10 MB/s; of an image drawn, or listed and checked; of a cell; of an export; of the rows."""


@dataclass(frozen=True, slots=True)
class Estimate:
    seconds: float
    low: float
    high: float
    """Where several measurements differ; equal to `seconds` where there is one, or none."""
    time_basis: Basis
    measurements: int
    memory_mb: float
    """Of a GPU for a stage that trains on one, else of the process."""
    memory_basis: Basis
    disk_mb: float
    disk_basis: Basis
    steps: int
    """Of the whole stage; 0: it has none."""
    step_seconds: float
    work_gmacs: float
    """Of the whole stage, multiply-adds in 1e9; 0: it does not count so."""


class CostModel:
    """Made once for a plan: reads the measurements, counts the images, and looks which hardware there is."""

    def __init__(self, plan: Plan) -> None:
        self.hardware = hardware_here(plan.benchmark.runtime)
        self._at = circumstances(plan, on_gpu=self.hardware.is_gpu)
        self.images = self._at.images
        self._single = hardware_here(plan.benchmark.runtime, distributed=False)
        self._on_device = hardware_here(plan.benchmark.runtime, distributed=False, on_device=True)
        self._measured = read_measurements()
        self._known: dict[str, Estimate] = {}

    def estimate(self, stage: Stage, step: int = 0) -> Estimate:
        """`step`: where it goes on, if it was interrupted."""
        alone = self._on_device if stage.on_device or stage.beside else self._single
        hardware = self.hardware if stage.distributed else alone
        # Cells differ in their seeds and arms alone, as a rule: a thousand of them are a few sums.
        identity = json.dumps([stage.kind, step, {**stage.settings, "seed": 0, "notes": 0}], sort_keys=True)
        if identity not in self._known:
            work = work_of(stage, self._at)
            self._known[identity] = _estimate(stage.kind, work, hardware, self._measured, step)
        return self._known[identity]


def remember(
    stage: Stage, folder: Path, environment: Mapping[str, Any], devices: tuple[str, ...], started: float
) -> None:
    """Add what a finished or interrupted stage's folder tells to the measurements; never raises.

    Args:
        folder: its work folder.
        environment: as flows.environment.describe_environment gives it.
        devices: names of those that it had for itself.
        started: when its process was (Unix seconds).
    """
    try:
        spec = json_object(folder / "spec.json")
        threads = int(spec.get("runtime", {}).get("threads") or 0)
        work = work_of(stage, _circumstances(stage, folder, spec))
        write_measurement(
            Measurement(
                kind=stage.kind,
                hardware=hardware_of(environment, devices, threads),
                like=work.like,
                step_gmacs=work.step_gmacs,
                other=work.other,
                **measure(folder, started, has_steps=work.steps > 0),
            )
        )
    except Exception:
        _log.warning("no measurement of %s was kept", stage.id, exc_info=True)


def _circumstances(stage: Stage, folder: Path, spec: Mapping[str, Any]) -> Circumstances:
    """Of a stage that ran, as far as its steps' length depends on them."""
    inputs = spec.get("inputs", {})
    data = folder if stage.kind == "data" else Path(inputs.get("data", folder))
    features = Path(inputs.get("features", folder))
    counts = json_object(data / "data.json").get("counts", {}) or json_object(features / "result.json")
    images = Images(counts.get("pool", 0), counts.get("train", 0), counts.get("val", 0), assumed=False)
    is_shapes = (
        stage.settings["data"]["kind"] == "shapes"
        if stage.kind == "data"
        else "data_places" not in (stage.runtime or {})
    )
    return Circumstances(images, is_shapes, compile=bool(spec.get("runtime", {}).get("compile")))


def _estimate(kind: str, work: Work, hardware: Hardware, measured: Sequence[Measurement], step: int) -> Estimate:
    usable, basis = _usable(kind, work, hardware, measured)
    left = max(0, work.steps - step)
    default_step, default_other = _default_step(kind, work, hardware), _default_other(kind, work, hardware)
    totals, step_seconds = [], [default_step]
    if usable:
        step_seconds = [
            default_step if m.step_seconds is None else m.step_seconds * _ratio(work.step_gmacs, m.step_gmacs)
            for m in usable
        ]
        others = [_other_seconds(kind, work, m, default_other, basis) for m in usable]
        totals = [left * s + o for s, o in zip(step_seconds, others, strict=True)]
    seconds = median(totals) if totals else left * default_step + default_other
    memory = [m.gpu_memory_mb if hardware.is_gpu else m.peak_memory_mb for m in usable] if basis == "measured" else []
    peaks = [peak for peak in memory if peak is not None]
    disks = [m.disk_mb for m in usable if m.other_seconds is not None] if basis == "measured" else []
    return Estimate(
        seconds=seconds, low=min(totals, default=seconds), high=max(totals, default=seconds), time_basis=basis,
        measurements=len(totals),
        memory_mb=max(peaks, default=work.memory_mb), memory_basis="measured" if peaks else "default",
        # Checkpoints go when a stage is finished: what it leaves is less than the most that it takes.
        disk_mb=max([work.disk_mb, *disks]) if work.steps else max(disks, default=work.disk_mb),
        disk_basis="measured" if disks and not work.steps else "default",
        steps=work.steps, step_seconds=median(step_seconds) if work.steps else 0.0,
        work_gmacs=work.steps * work.step_gmacs + (work.other if kind in _COUNTED_IN_GMACS else 0.0),
    )  # fmt: skip


def _usable(
    kind: str, work: Work, hardware: Hardware, measured: Sequence[Measurement]
) -> tuple[list[Measurement], Basis]:
    same = [m for m in measured if m.kind == kind and m.hardware == hardware.name]
    same = [m for m in same if m.step_seconds is not None or not work.steps]
    equal = [m for m in same if m.like == work.like and _is_near(m, work, 0.01)]
    if equal:
        return equal, "measured"
    if not same:
        return [], "default"
    nearest = min(_distance(m, work) for m in same)
    return [m for m in same if _distance(m, work) <= nearest + log(2)], "scaled"


def _amounts(work: Work | Measurement) -> float:
    return work.step_gmacs or work.other


def _distance(measured: Measurement, work: Work) -> float:
    return abs(log(max(_amounts(measured), 1e-9) / max(_amounts(work), 1e-9)))


def _is_near(measured: Measurement, work: Work, tolerance: float) -> bool:
    return _distance(measured, work) <= tolerance


def _ratio(wanted: float, measured: float) -> float:
    return wanted / measured if measured else 1.0


def _other_seconds(kind: str, work: Work, m: Measurement, default: float, basis: Basis) -> float:
    if m.other_seconds is None:
        return default
    start = min(_START_SECONDS[kind], m.other_seconds / 2)
    return start + (m.other_seconds - start) * _ratio(work.other, m.other) if basis == "scaled" else m.other_seconds


def _default_step(kind: str, work: Work, hardware: Hardware) -> float:
    if not work.steps:
        return 0.0
    where = "gpu" if hardware.is_gpu else "cpu"
    overhead = _IMAGE_OVERHEAD if kind == "features" else _STEP_OVERHEAD
    return overhead[where] + work.step_gmacs / (_GMACS_A_SECOND[where, kind] * hardware.units)


def _default_other(kind: str, work: Work, hardware: Hardware) -> float:
    if kind in _COUNTED_IN_GMACS:  # one process evaluates
        where, units = ("gpu", 1) if hardware.is_gpu else ("cpu", hardware.units)
        return _START_SECONDS[kind] + work.other / (_GMACS_A_SECOND[where, kind] * units)
    each = _OTHER_SECONDS[f"data {work.like['kind']}" if kind == "data" else kind]
    return _START_SECONDS[kind] + work.other * each
