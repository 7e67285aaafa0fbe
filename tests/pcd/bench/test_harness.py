import json
import time

import pytest
import torch
from rich.console import Console

from pcd.bench.harness import Row, Skipped, compare_times, describe_environment, to_json, to_table

CPU = torch.device("cpu")


def test_both_run_in_turn_and_each_first_in_every_other_pair() -> None:
    calls: list[str] = []
    compare_times("x", lambda: calls.append("o"), lambda: calls.append("b"), CPU, repeats=3, warmup=1)
    assert "".join(calls) == "boobboob"


def test_ratio_says_how_much_less_ours_takes() -> None:
    row = compare_times("x", lambda: time.sleep(0.001), lambda: time.sleep(0.5), CPU, repeats=3)
    assert row.ratio > 2
    assert row.unit == "s"


def test_quartiles_enclose_the_median() -> None:
    row = compare_times("x", lambda: sum(range(1000)), lambda: sum(range(5000)), CPU, repeats=5)
    assert row.ours_spread is not None
    assert row.baseline_spread is not None
    assert row.ratio_spread is not None
    assert row.ours_spread[0] <= row.ours <= row.ours_spread[1]
    assert row.baseline_spread[0] <= row.baseline <= row.baseline_spread[1]
    assert row.ratio_spread[0] <= row.ratio <= row.ratio_spread[1]


def test_json_holds_environment_and_rows() -> None:
    written = json.loads(to_json(describe_environment(CPU), [Row("a", 1.0, 3.0, "s", 3.0), Skipped("b", "no")]))
    assert written["rows"][0]["ratio"] == 3.0
    assert written["rows"][1] == {"name": "b", "reason": "no"}
    assert {"cpu", "threads", "torch", "date", "load"} <= written["environment"].keys()


def test_table_shows_ratio_and_reason() -> None:
    console = Console(width=200)
    with console.capture() as capture:
        console.print(to_table([Row("a", 1.0, 3.0, "s", 3.0, ratio_spread=(2.5, 3.5)), Skipped("b", "too large")]))
    assert "3.00×" in capture.get()
    assert "2.50–3.50" in capture.get()
    assert "skipped: too large" in capture.get()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_the_devices_events_take_the_time() -> None:
    x = torch.randn(4096, 4096, device="cuda")
    row = compare_times("x", lambda: x @ x, lambda: [x @ x for _ in range(10)], torch.device("cuda"))
    assert 3 < row.ratio < 30
