"""What `pcd status`, `logs` and `stop` say of real stages below real supervisors."""

import json
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from flows.cli import main
from flows.journal import Journal, Run
from flows.supervision.processes import identity
from flows.supervision.status import log_of, read_status, stop_run, stop_stage
from flows.supervision.supervisor import STOP_REQUEST
from pcd.errors import PCDError
from tests.flows.supervision.supervisors import left, start_supervisor, wait_until
from tests.patience import PATIENCE

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def store(pcd_home: Path) -> Path:
    return pcd_home / "store"


@pytest.fixture
def start(store: Path, pcd_home: Path) -> Iterator[Start]:
    """Start the stage pretrain:pcd.seed0 below a supervisor; returns once the stage is at work."""
    started: list[subprocess.Popen[bytes]] = []

    def run(what: str, root: Path = store, stop_seconds: float = 10) -> subprocess.Popen[bytes]:
        work = root / "pretrain" / ".work-0123"
        work.mkdir(parents=True)
        started.append(start_supervisor(work, what, stop_seconds=stop_seconds))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.wait()
    wait_until(lambda: not left(pcd_home))


def begin(home: Path, process: str, *stages: str) -> Journal:
    run = Run(
        id="r1", name="paper", key="k", process=process, started=time.time(), settings={},
        stages={stage: {} for stage in stages}, environment={}, tracking_uri="", artifacts="",
    )  # fmt: skip
    return Journal.begin(run, home)


def pcd(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def as_json(*arguments: str) -> Any:
    result = pcd(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.output)


def test_where_nothing_runs_it_says_so(pcd_home: Path) -> None:
    assert as_json("status") == {"runs": [], "stages": []}
    assert pcd("status").output == "nothing runs here\n"


def test_a_running_stage_is_told_with_its_progress(start: Start, pcd_home: Path) -> None:
    supervisor = start("progress")
    begin(pcd_home, identity(supervisor.pid), "data", "pretrain:pcd.seed0").note("cached", "data")
    wait_until(lambda: any(stage.phase == "steps" for stage in read_status(pcd_home).stages))
    (stage,) = read_status(pcd_home).stages
    assert (stage.stage, stage.cell, stage.benchmark, stage.part) == ("pretrain:pcd.seed0", "pcd.seed0", "paper", None)
    assert (stage.step, stage.total, stage.pcd_pid, stage.is_alive) == (1, 2, supervisor.pid, True)
    assert stage.heartbeat_age is not None
    assert stage.heartbeat_age < 30
    (run,) = read_status(pcd_home).runs
    assert (run.name, run.stages, run.done, run.running, run.waits_for) == ("paper", 2, 1, 1, None)
    assert "pretrain:pcd.seed0" in pcd("status").output


def test_a_killed_supervisor_is_told_as_dead(start: Start, pcd_home: Path) -> None:
    supervisor = start("wait")
    journal = begin(pcd_home, identity(supervisor.pid), "pretrain:pcd.seed0")
    supervisor.kill()
    supervisor.wait()
    status = read_status(pcd_home)
    assert [stage.is_alive for stage in status.stages] == [False]
    assert [run.is_alive for run in status.runs] == [False]
    assert pcd("status").output.count("dead; the next run closes it") == 2
    journal.forget()  # as whoever closes the run does
    assert pcd("status").output == "nothing runs here\n"


def test_a_run_that_waits_is_told_as_waiting(pcd_home: Path) -> None:
    begin(pcd_home, identity(), "data")
    (run,) = read_status(pcd_home).runs
    assert run.waits_for is not None
    assert "waits for" in pcd("status").output


def test_a_reruns_stages_are_told_as_its_own(start: Start, pcd_home: Path) -> None:
    start("wait", root=pcd_home / "reruns" / "again" / "store")
    assert [stage.part for stage in read_status(pcd_home).stages] == ["again"]


def test_a_stage_is_stopped_and_it_is_said_how(start: Start, pcd_home: Path) -> None:
    supervisor = start("wait")
    assert as_json("stop", "pcd.seed0") == {"stopped": ["pretrain:pcd.seed0 was stopped; its checkpoint is of step 7"]}
    assert left(pcd_home) == []
    assert supervisor.wait(PATIENCE) == 1


def test_a_stage_that_does_not_stop_is_killed_and_it_is_said(start: Start, pcd_home: Path) -> None:
    start("deafly wait", stop_seconds=1)
    assert stop_stage(pcd_home, "pretrain:pcd.seed0").endswith(
        "did not stop within 1 s and was killed; without a checkpoint"
    )


def test_a_supervisor_that_dies_meanwhile_is_told(start: Start, pcd_home: Path, store: Path) -> None:
    supervisor = start("wait")
    supervisor.send_signal(signal.SIGSTOP)  # so that it does not act on the request

    def kill_when_asked() -> None:
        wait_until((store / "pretrain" / ".work-0123" / STOP_REQUEST).exists)
        supervisor.kill()
        supervisor.wait()

    thread = threading.Thread(target=kill_when_asked)
    thread.start()
    assert "its pcd process ended as well" in stop_stage(pcd_home, "pcd.seed0")
    thread.join()


def test_the_whole_run_is_asked_by_a_signal_to_its_process(start: Start) -> None:
    supervisor = start("wait")
    stop_run(identity(supervisor.pid))
    assert supervisor.wait(PATIENCE) == -signal.SIGTERM


def test_another_process_with_the_same_id_gets_no_signal() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        with pytest.raises(PCDError, match="has ended already"):
            stop_run(f"{identity(process.pid)}0")
        assert process.poll() is None
        process.kill()


def test_a_misspelt_cell_is_told_the_nearest(start: Start, pcd_home: Path) -> None:
    start("wait")
    result = pcd("stop", "pcd.sed0")
    assert result.exit_code == 2
    assert 'did you mean "pcd.seed0"?' in result.output
    assert 'did you mean "pcd.seed0"?' in pcd("logs", "pcd.seed").output


@pytest.mark.parametrize("command", [("stop", "data"), ("stop", "all"), ("logs", "data")])
def test_where_there_is_nothing_it_is_the_users_error(pcd_home: Path, command: tuple[str, ...]) -> None:
    assert pcd(*command).exit_code == 2


# Logs.


def finished(store: Path, key: str, stage: str, log: str) -> Path:
    folder = store / "pretrain" / key
    folder.mkdir(parents=True)
    (folder / "log.txt").write_text(log)
    (folder / "manifest.json").write_text(json.dumps({"stage": stage, "key": key, "files": {}}))
    return folder / "log.txt"


def test_the_log_of_a_running_stage_comes_first(start: Start, store: Path, pcd_home: Path) -> None:
    start("wait")
    finished(store, "9", "pretrain:pcd.seed0", "old\n")
    assert log_of(pcd_home, "pcd.seed0") == store / "pretrain" / ".work-0123" / "log.txt"


def test_the_last_lines_of_a_finished_stage_are_printed(store: Path) -> None:
    log = finished(store, "9", "pretrain:pcd.seed0", "one\ntwo\nthree\n")
    assert pcd("logs", "pcd.seed0", "-n", "2").output == "two\nthree\n"
    assert as_json("logs", "pretrain:pcd.seed0", "-n", "1") == {"log": str(log), "lines": ["three"]}


def test_following_ends_where_the_supervisor_was_killed(start: Start, store: Path) -> None:
    supervisor = start("wait")
    supervisor.kill()
    supervisor.wait()
    work = store / "pretrain" / ".work-0123"
    assert (work / "heartbeat.json").exists()
    assert pcd("logs", "pcd.seed0", "-f").exit_code == 0


def test_a_log_is_followed_to_its_end(start: Start, pcd_home: Path, store: Path) -> None:
    start("tell a phase")
    with (store / "pretrain" / ".work-0123" / "log.txt").open("a") as file:
        file.write("first line\n")
    assert pcd("logs", "pcd.seed0", "-f").output.endswith("first line\n")
