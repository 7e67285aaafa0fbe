import json
import time
from pathlib import Path

import pytest

from flows.supervision.heartbeat import HEARTBEAT, Heartbeat, Pulse, read_heartbeats
from flows.supervision.processes import identity
from flows.supervision.stall import StallWatch


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "store" / "pretrain" / ".work-0123"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def pulse(work: Path) -> Pulse:
    return Pulse(work, Heartbeat(stage="s", key="0123", supervisor=identity(), process=identity(), devices=("cpu0",)))


def step(number: int) -> list[dict[str, int]]:
    return [{"step": number, "total": 100}]


def test_what_is_written_is_read(pulse: Pulse, work: Path, tmp_path: Path) -> None:
    pulse.steps(step(7))
    pulse.beat(at_once=True)
    (read,) = read_heartbeats([tmp_path / "store", tmp_path / "another"])
    assert (read.stage, read.devices, read.step, read.total, read.phase) == ("s", ("cpu0",), 7, 100, "steps")
    assert read.work == work
    assert read.is_alive
    assert read.age < 30


def test_the_rate_and_the_time_left_come_from_the_monotonic_clock(
    pulse: Pulse, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter([0.0, 10.0, 20.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(seconds))
    monkeypatch.setattr(time, "time", lambda: 0.0)
    for number in (10, 30, 50):
        pulse.steps(step(number))
    assert (pulse.now.rate, pulse.now.eta) == (2.0, 25.0)


def test_another_phase_has_a_rate_of_its_own(pulse: Pulse, work: Path) -> None:
    for number in (10, 30):
        pulse.steps(step(number))
    (work / "activity.json").write_text(json.dumps({"phase": "evaluation", "done": 3, "total": 5, "time": 1.0}))
    assert pulse.new_activity() == {"phase": "evaluation", "step": 3, "total": 5, "time": 1.0}
    assert pulse.new_activity() is None
    assert (pulse.now.phase, pulse.now.step, pulse.now.rate, pulse.now.eta) == ("evaluation", 3, None, None)


def test_a_stage_that_went_back_to_its_checkpoint_has_no_negative_rate(pulse: Pulse) -> None:
    for number in (30, 50, 20, 21):
        pulse.steps(step(number))
    assert pulse.now.rate is None or pulse.now.rate > 0


def test_a_heart_that_has_ended_is_not_read(pulse: Pulse, tmp_path: Path) -> None:
    pulse.beat(at_once=True)
    pulse.end()
    assert read_heartbeats([tmp_path / "store"]) == []


def test_a_dead_supervisors_heart_is_read_as_such(pulse: Pulse, work: Path, tmp_path: Path) -> None:
    pulse.beat(at_once=True)
    path = work / HEARTBEAT
    path.write_text(path.read_text().replace(identity(), f"{identity()}0"))
    (read,) = read_heartbeats([tmp_path / "store"])
    assert not read.is_alive


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"stage": "s", "devices": 3}'])
def test_what_is_no_heartbeat_is_passed_over(work: Path, tmp_path: Path, content: str) -> None:
    (work / HEARTBEAT).write_text(content)
    assert read_heartbeats([tmp_path / "store"]) == []


def test_a_disk_that_is_full_does_not_stop_a_heart(pulse: Pulse, work: Path) -> None:
    work.rmdir()
    pulse.beat(at_once=True)
    pulse.end()
    assert pulse.now.beat == 1


# What tells a stage that hangs.


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Its last number is the time."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[-1])
    return now


@pytest.mark.parametrize("name", ["metrics.jsonl", "activity.json", "log.txt", "checkpoint.json"])
def test_every_sign_of_progress_counts(work: Path, clock: list[float], name: str) -> None:
    watch = StallWatch(work)
    for now in (3.0, 6.0):
        clock.append(now)
        watch.look()
    assert watch.quiet == 6.0
    with (work / name).open("a") as file:
        file.write("x")
    watch.look()
    assert watch.quiet == 0.0


def test_time_in_which_nobody_looked_is_not_held_against_the_stage(work: Path, clock: list[float]) -> None:
    watch = StallWatch(work)
    clock.append(86_400.0)
    watch.look()
    assert watch.quiet == 5.0
