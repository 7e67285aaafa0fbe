import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from flows.supervision.stall import StallWatch
from pcd.snapshots import write_snapshot
from pcd.students import build_student
from tests.patience import PATIENCE


class _Scalar(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([value]))


@pytest.fixture
def live(tmp_path: Path) -> Path:
    """The work folder of a pre-training that has left snapshots of two epochs."""
    folder = tmp_path / "pretrain" / ".work-1"
    for epoch in (1, 2):
        write_snapshot(_Scalar(epoch * 10.0), folder, epoch, {})
    return folder


Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start(live: Path, tmp_path: Path, new_spec: Callable[..., Path]) -> Start:
    def begin(**evaluation: Any) -> "subprocess.Popen[bytes]":
        settings = {"epochs": 3, "every_epochs": 1, "module": "tests.eval.watched_stage", "evaluation": evaluation}
        places = {"live": str(live), "final": str(live.with_name("1"))}
        spec = new_spec(tmp_path / "watch", settings, {"data": tmp_path}, **places)
        with (tmp_path / "stderr.txt").open("w") as log:
            return subprocess.Popen([sys.executable, "-m", "eval.watch", str(spec)], stderr=log)

    return begin


def _wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def _finish(live: Path) -> None:
    """As the supervisor and the store do."""
    (live / "result.json").write_text("{}")
    live.rename(live.with_name("1"))


def _logged(out: Path) -> list[tuple[int, float]]:
    path = out / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [(line["step"], line["bbox/AP"]) for line in lines]


def test_snapshots_are_evaluated_as_they_appear_and_the_watch_ends_with_the_training(
    start: Start, live: Path, tmp_path: Path
) -> None:
    process, out = start(), tmp_path / "watch"
    _wait_until(lambda: _logged(out) == [(1, 10), (2, 20)])
    assert process.poll() is None
    write_snapshot(_Scalar(30.0), live, 3, {})
    _finish(live)
    assert process.wait(PATIENCE) == 0
    assert _logged(out) == [(1, 10), (2, 20), (3, 30)]
    curve = json.loads((out / "result.json").read_text())["curve"]
    assert curve[-1] == {"epoch": 3.0, "metrics": {"bbox/AP": 30.0, "bbox/APl": None}}
    assert not list(out.rglob("backbone.safetensors"))


def test_an_older_result_that_is_computed_anew_is_not_what_is_watched(start: Start, live: Path, tmp_path: Path) -> None:
    old = live.with_name("1")
    write_snapshot(_Scalar(70.0), old, 1, {})
    (old / "result.json").write_text("{}")
    process = start()
    _wait_until(lambda: len(_logged(tmp_path / "watch")) == 2)
    assert process.poll() is None  # the older one's end is not this one's
    shutil.rmtree(old)
    _finish(live)
    assert process.wait(PATIENCE) == 0
    assert [ap for _, ap in _logged(tmp_path / "watch")] == [10.0, 20.0]


def test_a_watch_that_was_stopped_goes_on_without_a_figure_twice(start: Start, live: Path, tmp_path: Path) -> None:
    process, out = start(wait=True), tmp_path / "watch"
    _wait_until((out / "epoch-0001.00" / "spec.json").exists)
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == 75
    (out / "go-on").touch()
    process = start(wait=True)
    _wait_until(lambda: len(_logged(out)) == 2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == 75
    _finish(live)
    assert start(wait=True).wait(PATIENCE) == 0
    assert _logged(out) == [(1, 10), (2, 20)]


def _silences(out: Path, seconds: float, enough: float) -> Iterator[float]:
    """Of the watch, as its supervisor counts them, in these seconds or until one is long enough."""
    watch, end = StallWatch(out), time.monotonic() + seconds
    while time.monotonic() < end and watch.quiet < enough:
        watch.look()
        yield watch.quiet
        time.sleep(0.05)


@pytest.mark.parametrize(("tell", "falls_quiet"), [(False, True), (True, False)])
def test_a_silent_evaluation_lets_the_watch_fall_quiet_and_one_that_goes_on_does_not(
    start: Start, tmp_path: Path, tell: bool, falls_quiet: bool
) -> None:
    process, out = start(wait=True, tell=tell), tmp_path / "watch"
    log = out / "epoch-0001.00" / "log.txt"
    _wait_until((log.with_name("activity.json") if tell else log).exists)
    longest = max(_silences(out, seconds=PATIENCE if falls_quiet else 15, enough=10))
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == 75
    assert (longest >= 10) == falls_quiet


def test_an_evaluation_that_fails_is_told_in_one_line_with_its_epoch(start: Start, tmp_path: Path) -> None:
    assert start(fail=True).wait(PATIENCE) == 2
    assert (tmp_path / "stderr.txt").read_text().splitlines()[-1] == "error: epoch 1: this backbone cannot be evaluated"


def test_a_training_without_snapshots_is_told(start: Start, live: Path, tmp_path: Path) -> None:
    for file in live.rglob("backbone.safetensors"):
        file.unlink()
    _finish(live)
    assert start().wait(PATIENCE) == 2
    assert "left no snapshot to watch" in (tmp_path / "stderr.txt").read_text()


@pytest.mark.slow
def test_a_snapshot_is_fine_tuned_by_the_same_process_as_any_backbone(
    live: Path, tmp_path: Path, new_spec: Callable[..., Path], shapes_set: Path, smoke_protocol: dict[str, Any],
    run_module: Callable[..., "subprocess.CompletedProcess[str]"],
) -> None:  # fmt: skip
    folder = tmp_path / "stored"
    torch.manual_seed(0)
    write_snapshot(build_student("resnet18"), folder, 1, {"student": "resnet18"})
    (folder / "result.json").write_text("{}")
    evaluation = {"finetune": smoke_protocol | {"iterations": 3}, "student": "resnet18", "seed": 0}
    settings = {"epochs": 1, "every_epochs": 1, "module": "eval.finetune", "evaluation": evaluation}
    spec = new_spec(tmp_path / "watch", settings, {"data": shapes_set}, live=str(tmp_path / "none"), final=str(folder))
    done = run_module("eval.watch", spec)
    assert done.returncode == 0, done.stderr
    (point,) = json.loads((tmp_path / "watch" / "result.json").read_text())["curve"]
    assert point["metrics"]["bbox/AP"] >= 0
