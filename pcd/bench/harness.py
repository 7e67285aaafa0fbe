"""Measuring two ways of doing one thing against each other.

Machines are shared and clocks wander, so both ways run in turn in one process, and what is compared are the pairs.
"""

import datetime
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

__all__ = ["Row", "Skipped", "Suite", "compare_times", "describe_environment", "to_json", "to_table"]

Work = Callable[[], object]

Quartiles = tuple[float, float]


@dataclass(frozen=True)
class Row:
    """Ours against a baseline; the less of either, the better."""

    name: str
    ours: float
    """Median over the repeats."""
    baseline: float
    unit: str
    ratio: float
    """baseline / ours, above 1 where ours is better; of times the median over the pairs."""
    ours_spread: Quartiles | None = None
    baseline_spread: Quartiles | None = None
    ratio_spread: Quartiles | None = None
    """First and third quartile over the repeats, of the ratio over its pairs; None for what is measured once."""
    note: str = ""


@dataclass(frozen=True)
class Skipped:
    """A row, or a whole suite, that this machine cannot measure."""

    name: str
    reason: str


Suite = Callable[[torch.device], Iterable[Row | Skipped]]


def compare_times(
    name: str, ours: Work, baseline: Work, device: torch.device, *, repeats: int = 7, warmup: int = 1, note: str = ""
) -> Row:
    """Seconds of both, in turn, each first in every other pair.

    Args:
        ours, baseline: one call is one measurement; on CUDA the device's own events take the time.
        repeats: pairs that count, at least 2.
        warmup: pairs before them.
    """
    pairs = []
    for i in range(warmup + repeats):
        first, second = (ours, baseline) if i % 2 else (baseline, ours)
        times = {first: _seconds(first, device), second: _seconds(second, device)}
        if i >= warmup:
            pairs.append((times[ours], times[baseline]))
    ours_times, baseline_times = zip(*pairs, strict=True)
    # Of each pair, not of the medians: a burst of other work slows both of a pair, but only some of the repeats.
    ratios = [slow / fast for fast, slow in pairs]
    return Row(
        name=name,
        ours=statistics.median(ours_times),
        baseline=statistics.median(baseline_times),
        unit="s",
        ratio=statistics.median(ratios),
        ours_spread=_quartiles(ours_times),
        baseline_spread=_quartiles(baseline_times),
        ratio_spread=_quartiles(ratios),
        note=note,
    )


def _seconds(work: Work, device: torch.device) -> float:
    if device.type == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(device)
        start.record()
        work()
        end.record()
        torch.cuda.synchronize(device)
        return float(start.elapsed_time(end)) / 1000
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _quartiles(values: Sequence[float]) -> Quartiles:
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


def describe_environment(device: torch.device) -> dict[str, Any]:
    """What the figures depend on, the machine's load at this moment included."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _cpu_model() -> str:
    description = Path("/proc/cpuinfo")
    if description.exists():
        for line in description.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def to_json(environment: dict[str, Any], results: Sequence[Row | Skipped]) -> str:
    return json.dumps({"environment": environment, "rows": [asdict(result) for result in results]}, indent=2)


def to_table(results: Sequence[Row | Skipped]) -> Table:
    table = Table("", "ours", "baseline", "ratio", "quartiles", "note")
    for result in results:
        if isinstance(result, Skipped):
            table.add_row(result.name, "", "", "", "", f"skipped: {result.reason}")
        else:
            spread = "{:.2f}–{:.2f}".format(*result.ratio_spread) if result.ratio_spread else ""
            ours, baseline = (f"{value:.3g} {result.unit}" for value in (result.ours, result.baseline))
            table.add_row(result.name, ours, baseline, f"{result.ratio:.2f}×", spread, result.note)
    return table
