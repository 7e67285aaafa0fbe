"""$PCD_HOME/measurements.jsonl: how long stages took on this machine and what they needed, one line for each."""

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, Final

from eval.metric_lines import MetricLine, read_metric_lines
from flows.home import home
from flows.json_object import json_object

__all__ = ["CUDA_MB", "Measurement", "measure", "read_measurements", "write_measurement"]

CUDA_MB: Final = 700
"""What CUDA's context and libraries take of a GPU beside the tensors."""
_FILE: Final = "measurements.jsonl"
_LAST: Final = 2000
"""Newest lines that are read: a file of many years must not slow every plan."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    kind: str
    hardware: str
    """See flows.planning.hardware."""
    like: dict[str, Any] = field(default_factory=dict)
    step_gmacs: float = 0.0
    other: float = 0.0
    """As flows.planning.stage_work.Work has them."""
    step_seconds: float | None = None
    """Median; None: too few records of steps."""
    other_seconds: float | None = None
    """What the stage took beside its steps: start, evaluation, export. None: it was interrupted."""
    peak_memory_mb: float | None = None
    """Of the process that wrote the result."""
    gpu_memory_mb: float | None = None
    """The most that it took of a GPU."""
    disk_mb: float = 0.0
    time: float = 0.0
    """Unix seconds."""


_KNOWN: Final = frozenset(f.name for f in fields(Measurement))


def read_measurements() -> list[Measurement]:
    """Oldest first; lines that are damaged, or of another version, are passed over."""
    try:
        lines = (home() / _FILE).read_text().splitlines()[-_LAST:]
    except OSError:
        return []
    found = []
    for line in lines:
        try:
            raw = json.loads(line)
            found.append(Measurement(**{name: value for name, value in raw.items() if name in _KNOWN}))
        except (ValueError, TypeError, AttributeError):
            continue
    return found


def write_measurement(measurement: Measurement) -> None:
    path = home() / _FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:  # one write of one line: several runs may do so at once
        file.write(json.dumps(asdict(measurement)) + "\n")


def measure(folder: Path, started: float, *, has_steps: bool = True) -> dict[str, Any]:
    """What a stage's folder tells of its steps, memory and disk, by the names of Measurement.

    Args:
        started: when its process was, Unix seconds: its own clock begins behind the imports.
        has_steps: whether the steps in metrics.jsonl are alike; else all of its time counts as beside them.
    """
    lines, result = _lines(folder / "metrics.jsonl") if has_steps else [], json_object(folder / "result.json")
    gaps = [
        (b["time"] - a["time"]) / (b["step"] - a["step"])
        for a, b in pairwise(lines)
        if b["step"] > a["step"] and b["time"] > a["time"]
    ]
    step_seconds = median(gaps[len(gaps) // 10 :]) if gaps else None  # the first ones are slower
    seconds = result.get("seconds")
    other_seconds = None
    if seconds is not None:
        end = (folder / "result.json").stat().st_mtime
        seconds = max(seconds, end - started)
        done = [line["step"] for line in lines if line["time"] >= end - seconds]  # by the last of its processes
        before = [line["step"] for line in lines if line["time"] < end - seconds]
        steps = max(done, default=0) - max(before, default=0)
        other_seconds = max(0.0, seconds - steps * (step_seconds or 0.0))
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {
        "step_seconds": step_seconds,
        "other_seconds": other_seconds,
        "peak_memory_mb": result.get("peak_memory_mb"),
        "gpu_memory_mb": _gpu_memory(result, _lines(folder / "system.jsonl")),
        "disk_mb": sum(path.stat().st_size for path in files) / 1e6,
        "time": round(time.time(), 3),
    }


def _lines(path: Path) -> list[MetricLine]:
    return [line for line in read_metric_lines(path) if {"step", "time"} <= line.keys()]


def _gpu_memory(result: Mapping[str, Any], samples: Iterable[Mapping[str, Any]]) -> float | None:
    """The tensors' peak, as the stage tells it, with CUDA's own share; else what the fullest GPU held by samples."""
    if (peak := result.get("peak_gpu_memory_mb")) is not None:
        return float(peak) + CUDA_MB
    used = [
        float(value)
        for line in samples
        for name, value in line.items()
        if name.startswith("system/gpu_") and name.endswith("_memory_usage_megabytes")
    ]
    return max(used, default=None)
