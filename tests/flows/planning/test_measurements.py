import json
import os
from math import inf
from pathlib import Path
from typing import Any

import pytest

from flows.planning.measurements import CUDA_MB, Measurement, measure, read_measurements, write_measurement


def _stage(folder: Path, lines: list[dict[str, Any]], seconds: float | None, end: float) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if seconds is not None:
        (folder / "result.json").write_text(json.dumps({"seconds": seconds, "peak_memory_mb": 900}))
        os.utime(folder / "result.json", (end, end))
    return folder


def _steps(count: int, each: float, start: float = 1000.0, first: int = 1) -> list[dict[str, Any]]:
    return [{"step": first + i, "total": 99, "time": start + i * each} for i in range(count)]


def test_what_is_written_is_read(pcd_home: Path) -> None:
    one = Measurement(kind="pretrain", hardware="8 x A", like={"batch": 16}, step_gmacs=2.0, step_seconds=0.5)
    write_measurement(one)
    write_measurement(one)
    assert read_measurements() == [one, one]


def test_damaged_lines_are_passed_over(pcd_home: Path) -> None:
    one = Measurement(kind="data", hardware="h")
    write_measurement(one)
    with (pcd_home / "measurements.jsonl").open("a") as file:
        file.write('{"kind": "da\n[1]\n{"hardware": "without a kind"}\n{"kind": "data", "hardware": "h", "new": 1}\n')
    assert read_measurements() == [one, one]


def test_without_a_file_nothing_was_measured(pcd_home: Path) -> None:
    assert read_measurements() == []


def test_a_step_takes_the_median_and_the_rest_is_beside_the_steps(tmp_path: Path) -> None:
    lines = _steps(21, 2.0)
    lines[10]["time"] += 0.5  # a checkpoint
    found = measure(_stage(tmp_path / "stage", lines, seconds=60.0, end=1055.0), started=inf)
    assert found["step_seconds"] == 2.0
    assert found["other_seconds"] == pytest.approx(60 - 21 * 2.0)
    assert found["peak_memory_mb"] == 900
    assert found["disk_mb"] > 0


def test_of_a_resumed_stage_the_last_process_counts_for_what_is_beside_the_steps(tmp_path: Path) -> None:
    lines = _steps(10, 2.0) + _steps(5, 2.0, start=5000.0, first=11)
    found = measure(_stage(tmp_path / "stage", lines, seconds=20.0, end=5012.0), started=inf)
    assert found["step_seconds"] == 2.0
    assert found["other_seconds"] == pytest.approx(20 - 5 * 2.0)


def test_a_stage_counts_from_the_start_of_its_process(tmp_path: Path) -> None:
    folder = _stage(tmp_path / "stage", _steps(5, 2.0), seconds=12.0, end=1010.0)
    assert measure(folder, started=990.0)["other_seconds"] == pytest.approx(20 - 5 * 2.0)


def test_without_steps_that_are_alike_all_its_time_is_beside_them(tmp_path: Path) -> None:
    found = measure(_stage(tmp_path / "stage", _steps(5, 2.0), seconds=12.0, end=1010.0), started=inf, has_steps=False)
    assert (found["step_seconds"], found["other_seconds"]) == (None, 12.0)


def test_an_interrupted_stage_tells_its_steps_alone(tmp_path: Path) -> None:
    found = measure(_stage(tmp_path / "stage", _steps(5, 3.0), seconds=None, end=0), started=inf)
    assert (found["step_seconds"], found["other_seconds"], found["peak_memory_mb"]) == (3.0, None, None)


def test_a_stage_that_tells_its_gpu_memory_needs_that_and_cudas_own_share(tmp_path: Path) -> None:
    folder = _stage(tmp_path / "stage", _steps(2, 1.0), seconds=5.0, end=1005.0)
    (folder / "result.json").write_text(json.dumps({"seconds": 5.0, "peak_gpu_memory_mb": 4000}))
    assert measure(folder, started=inf)["gpu_memory_mb"] == 4000 + CUDA_MB


def test_else_the_fullest_gpu_is_what_it_needed(tmp_path: Path) -> None:
    folder = _stage(tmp_path / "stage", _steps(2, 1.0), seconds=5.0, end=1005.0)
    names = [f"system/gpu_{number}_memory_usage_megabytes" for number in (0, 1)]
    samples = [{"step": i, "time": i, names[0]: 100 * i, names[1]: 50} for i in (1, 3, 2)]
    (folder / "system.jsonl").write_text("".join(json.dumps(sample) + "\n" for sample in samples) + '{"step": 4, "ti')
    assert measure(folder, started=inf)["gpu_memory_mb"] == 300
