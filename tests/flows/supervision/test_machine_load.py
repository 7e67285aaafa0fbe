import json
import time
from pathlib import Path
from types import SimpleNamespace

import pynvml
import pytest

from eval.metric_lines import read_metric_lines
from flows.supervision.machine_load import sample_load, sampled_load
from tests.flows.supervision.supervisors import wait_until


def _samples(file: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_a_sample_says_what_processor_memory_and_disk_do(tmp_path: Path) -> None:
    load = sample_load(tmp_path)
    assert {"system/cpu_utilization_percentage", "system/disk_available_megabytes"} <= load.keys()
    assert load["system/system_memory_usage_megabytes"] > 0


def test_a_gpu_that_tells_nothing_hides_neither_its_memory_nor_the_other_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a driver answers for a partitioned card, a lost one and a whole one."""

    def handle(number: int) -> int:
        if number == 1:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        return number

    def rates(gpu: int) -> SimpleNamespace:
        if gpu == 0:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return SimpleNamespace(gpu=70)

    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: 3)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", handle)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetMemoryInfo", lambda gpu: SimpleNamespace(used=(gpu + 1) * 2**20))
    monkeypatch.setattr(pynvml, "nvmlDeviceGetUtilizationRates", rates)
    load = {name: value for name, value in sample_load(tmp_path).items() if name.startswith("system/gpu_")}
    assert load == {
        "system/gpu_0_memory_usage_megabytes": 1,
        "system/gpu_2_memory_usage_megabytes": 3,
        "system/gpu_2_utilization_percentage": 70,
    }


def test_samples_are_taken_while_the_block_runs_and_not_after_it(tmp_path: Path) -> None:
    file = tmp_path / "system.jsonl"
    with sampled_load(file, every=0.05):
        wait_until(lambda: file.exists() and len(_samples(file)) >= 3)
    count = len(_samples(file))
    time.sleep(0.2)
    assert len(_samples(file)) == count


def test_a_retry_counts_on_behind_a_line_that_was_cut_short(tmp_path: Path) -> None:
    file = tmp_path / "system.jsonl"
    file.write_text('{"step": 1}\n{"ste{"step": 2}\n{"step": 3}\n{"ste')
    with sampled_load(file):
        wait_until(lambda: len(file.read_text().splitlines()) >= 5)
    assert [sample["step"] for sample in read_metric_lines(file)] == [1, 3, 4]


def test_a_file_that_cannot_be_read_hinders_no_stage(tmp_path: Path) -> None:
    with sampled_load(tmp_path, every=0.01):  # a folder
        time.sleep(0.05)
