"""A supervisor that ends, in whatever way, leaves none of the stage's processes: real ones, really killed."""

import itertools
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from eval.metric_lines import MetricLine
from flows.supervision.heartbeat import HEARTBEAT, read_heartbeats
from flows.supervision.supervisor import ENDED, STOP_REQUEST, run_process
from pcd.errors import StageFailedError, StageStoppedError
from tests.flows.supervision.supervisors import command, left, start_supervisor, wait_until


@pytest.fixture
def work(pcd_home: Path) -> Path:
    folder = pcd_home / "store" / "pretrain" / ".work-0123"
    folder.mkdir(parents=True)
    return folder


def run(
    work: Path, what: str, *, stop_seconds: float = 20, stall_seconds: float = 60, ranks: int = 1,
    on_metrics: Callable[[list[MetricLine]], None] = lambda lines: None, stop: threading.Event | None = None,
) -> None:  # fmt: skip
    run_process(
        command(work, what, ranks), work, on_metrics, stop_seconds=stop_seconds, stall_seconds=stall_seconds, stop=stop
    )


def when(condition: Callable[[], bool], act: Callable[[], object]) -> None:
    def wait() -> None:
        wait_until(condition)
        act()

    threading.Thread(target=wait, daemon=True).start()


@pytest.mark.slow
def test_ranks_save_their_checkpoint_and_end_when_the_supervisor_is_killed(work: Path, pcd_home: Path) -> None:
    supervisor = start_supervisor(work, "wait", ranks=2)
    assert len(left(pcd_home)) == 3  # the agent and its ranks
    supervisor.kill()
    supervisor.wait()
    wait_until(lambda: not left(pcd_home))
    assert (work / "checkpoint.pt").exists()


def test_what_does_not_stop_ends_as_well_when_the_supervisor_is_killed(work: Path, pcd_home: Path) -> None:
    supervisor = start_supervisor(work, "deafly wait", stop_seconds=1)
    supervisor.kill()
    supervisor.wait()
    wait_until(lambda: not left(pcd_home))


@pytest.mark.slow
def test_ranks_that_do_not_stop_are_killed_with_their_agent(work: Path, pcd_home: Path) -> None:
    stop = threading.Event()
    when(lambda: len(list(work.glob("ready-*"))) == 2, stop.set)
    with pytest.raises(StageStoppedError, match="did not stop within 2 s and was killed; without a checkpoint"):
        run(work, "deafly wait", stop_seconds=2, ranks=2, stop=stop)
    assert left(pcd_home) == []


@pytest.mark.slow
def test_ranks_end_when_their_agent_is_killed(work: Path, pcd_home: Path) -> None:
    def kill_the_agent() -> None:
        os.kill(read_heartbeats([pcd_home / "store"])[0].pid, signal.SIGKILL)

    when(lambda: len(list(work.glob("ready-*"))) == 2, kill_the_agent)
    with pytest.raises(StageFailedError, match="was killed by SIGKILL"):
        run(work, "wait", ranks=2)
    assert left(pcd_home) == []
    assert (work / "checkpoint.pt").exists()


def test_a_child_in_a_session_of_its_own_ends_with_its_stage(work: Path, pcd_home: Path) -> None:
    run(work, "leave a child", stop_seconds=1)
    assert left(pcd_home) == []


def test_a_stage_that_hangs_is_stopped_and_has_failed(work: Path) -> None:
    with pytest.raises(StageFailedError, match=r"showed no sign of progress for .* was killed"):
        run(work, "hang", stall_seconds=15, stop_seconds=0.5)


def test_a_stage_that_makes_progress_outlives_any_jump_of_the_clock(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, stop, jumps = time.time, threading.Event(), itertools.cycle([0, 1e6, -1e6])
    monkeypatch.setattr(time, "time", lambda: real() + next(jumps))
    when((work / "metrics.jsonl").exists, lambda: time.sleep(16) or stop.set())
    with pytest.raises(StageStoppedError, match="was stopped; its checkpoint is of step 7"):
        run(work, "progress", stall_seconds=15, stop=stop)


def test_the_age_of_a_heartbeat_is_none_of_the_clocks_business(
    work: Path, pcd_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ages: list[float] = []
    monkeypatch.setattr(time, "time", lambda: 0.0)

    def look(lines: list[MetricLine]) -> None:
        ages.extend(beat.age for beat in read_heartbeats([pcd_home / "store"]))

    run(work, "tell a phase", on_metrics=look)
    assert ages
    assert max(ages) < 60


def test_a_file_stops_this_stage_alone_and_another_goes_on(work: Path, pcd_home: Path) -> None:
    other = work.with_name(".work-4567")
    other.mkdir()
    when((work / "ready-0").exists, (work / STOP_REQUEST).touch)
    outcome: list[BaseException] = []
    stop = threading.Event()

    def run_other() -> None:
        try:
            run(other, "wait", stop=stop)
        except StageStoppedError as error:
            outcome.append(error)

    thread = threading.Thread(target=run_other)
    thread.start()
    with pytest.raises(StageStoppedError, match="was stopped; its checkpoint is of step 7") as caught:
        run(work, "wait")
    assert caught.value.alone
    assert json.loads((work / ENDED).read_text())["how"].startswith("was stopped")
    wait_until((other / "ready-0").exists)
    assert len(left(pcd_home)) == 1
    stop.set()
    thread.join()
    assert [getattr(error, "alone", None) for error in outcome] == [False]


def test_a_stop_before_the_beginning_starts_nothing(work: Path) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(StageStoppedError, match="before it began"):
        run(work, "succeed", stop=stop)
    assert not (work / "log.txt").exists()


def test_a_stage_that_was_killed_behind_its_result_is_finished(work: Path) -> None:
    run(work, "finish and be killed")
    assert json.loads((work / "result.json").read_text()) == {"answer": 42}


def test_phases_are_told_as_lines(work: Path) -> None:
    told: list[MetricLine] = []
    run(work, "tell a phase", on_metrics=told.extend)
    assert {(line["phase"], line["total"]) for line in told} == {("evaluation", 3)}
    assert told[-1]["step"] == 3


def test_a_heart_beats_while_the_stage_runs_and_no_longer(work: Path, pcd_home: Path) -> None:
    beats: list[tuple[str, str, bool]] = []

    def look(lines: list[MetricLine]) -> None:
        beats.extend((b.stage, b.phase, b.is_alive) for b in read_heartbeats([pcd_home / "store"]))

    run(work, "tell a phase", on_metrics=look)
    assert ("pretrain:pcd.seed0", "evaluation", True) in beats
    assert not (work / HEARTBEAT).exists()


def test_a_finished_stage_leaves_nothing_but_its_results(work: Path) -> None:
    run(work, "tell a phase")
    assert sorted(path.name for path in work.iterdir()) == ["log.txt", "ready-0", "result.json", "spec.json"]


def test_a_retry_waits_for_what_a_killed_supervisor_left_and_says_so(work: Path, pcd_home: Path) -> None:
    supervisor = start_supervisor(work, "save slowly")
    supervisor.kill()
    supervisor.wait()
    phases: set[str] = set()

    def let_it_save() -> None:
        phases.update(beat.phase for beat in read_heartbeats([pcd_home / "store"]))
        (work / "may-save").touch()

    when(lambda: "waiting" in (work / "log.txt").read_text(), let_it_save)
    run(work, "succeed")
    assert "waiting for an earlier attempt to end" in phases
    assert json.loads((work / "result.json").read_text())["attempt"] == "first"


def test_a_process_that_would_save_for_ever_is_killed_before_the_retry(work: Path, pcd_home: Path) -> None:
    supervisor = start_supervisor(work, "save slowly", stop_seconds=60)
    supervisor.kill()
    supervisor.wait()
    run(work, "succeed", stop_seconds=1)
    assert "attempt" not in json.loads((work / "result.json").read_text())
    assert left(pcd_home) == []


def test_a_fault_of_the_listener_ends_the_stage(work: Path, pcd_home: Path) -> None:
    def fail(lines: list[MetricLine]) -> None:
        raise ValueError("the listener's own fault")

    with pytest.raises(ValueError, match="the listener's own"):
        run(work, "wait", on_metrics=fail)
    assert left(pcd_home) == []
