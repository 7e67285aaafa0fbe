import json
import time
from pathlib import Path

from flows.supervision.machine_load import sample_load, sampled_load
from flows.supervision.metrics_tail import read_lines


def _samples(file: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_a_sample_says_what_processor_memory_and_disk_do(tmp_path: Path) -> None:
    load = sample_load(tmp_path)
    assert {"system/cpu_utilization_percentage", "system/disk_available_megabytes"} <= load.keys()
    assert load["system/system_memory_usage_megabytes"] > 0


def test_samples_are_taken_while_the_block_runs_and_not_after_it(tmp_path: Path) -> None:
    file = tmp_path / "system.jsonl"
    with sampled_load(file, every=0.05):
        while not file.exists() or len(_samples(file)) < 3:
            time.sleep(0.01)
    count = len(_samples(file))
    time.sleep(0.2)
    assert len(_samples(file)) == count


def test_a_retry_counts_on_behind_a_line_that_was_cut_short(tmp_path: Path) -> None:
    file = tmp_path / "system.jsonl"
    file.write_text('{"step": 1}\n{"ste{"step": 2}\n{"step": 3}\n{"ste')
    with sampled_load(file):
        while len(file.read_text().splitlines()) < 5:
            time.sleep(0.01)
    assert [sample["step"] for sample in read_lines(file)] == [1, 3, 4]


def test_a_file_that_cannot_be_read_hinders_no_stage(tmp_path: Path) -> None:
    with sampled_load(tmp_path, every=0.01):  # a folder
        time.sleep(0.05)
