"""Marked processes, really started and really ended."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from flows.supervision.processes import descendants_of, end_processes, identity, orphans, runs
from tests.patience import PATIENCE

Start = Callable[..., subprocess.Popen[bytes]]

PARENT = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(600)'], env={})"
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[subprocess.Popen[bytes]] = []

    def run(supervisor: str, stage: str = "k", code: str = "import time; time.sleep(600)") -> subprocess.Popen[bytes]:
        marks = {"PCD_SUPERVISOR": supervisor, "PCD_STAGE": stage, "PCD_HOME": str(tmp_path)}
        command = [sys.executable, "-c", code]
        started.append(subprocess.Popen(command, env=marks, start_new_session=True, stdout=subprocess.PIPE))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def dead() -> str:
    """The identity of a process that has ended."""
    with subprocess.Popen(["sleep", "60"]) as process:
        mark = identity(process.pid)
        process.kill()
    return mark


def ids(processes: list[psutil.Process]) -> set[int]:
    return {process.pid for process in processes}


def test_descendants_are_found_in_whatever_session_they_are(start: Start) -> None:
    both = {start(identity()).pid, start(identity()).pid}
    assert ids(descendants_of(identity())) == both


def test_descendants_of_one_stage_are_its_own(start: Start) -> None:
    wanted, _ = start(identity(), "one"), start(identity(), "other")
    assert ids(descendants_of(identity(), "one")) == {wanted.pid}


def test_a_child_without_the_mark_is_found_below_its_parent(start: Start) -> None:
    parent = start(identity(), code=PARENT)
    end = time.monotonic() + PATIENCE
    while len(descendants_of(identity())) < 2:
        assert time.monotonic() < end
    found = descendants_of(identity())
    assert parent.pid in ids(found)
    end_processes(found, 5)
    assert not any(runs(process) for process in found)


def test_this_process_is_never_its_own_descendant(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PCD_SUPERVISOR", identity())
    assert os.getpid() not in ids(descendants_of(identity()))


def test_orphans_are_those_of_dead_supervisors_of_this_home(start: Start, dead: str, tmp_path: Path) -> None:
    orphan, _ = start(dead), start(identity())
    assert ids(orphans(tmp_path)) == {orphan.pid}
    assert orphans(tmp_path, "another key") == []
    assert orphans(tmp_path / "another home") == []


def test_who_obeys_is_not_killed(start: Start) -> None:
    process = start(identity())
    end_processes(descendants_of(identity()), 30)
    assert process.wait(PATIENCE) == -15


def test_who_does_not_obey_is_killed_when_the_time_is_over(start: Start) -> None:
    process = start(identity(), code=DEAF)
    assert process.stdout is not None
    process.stdout.readline()
    end_processes(descendants_of(identity()), 0.2)
    assert process.wait(PATIENCE) == -9


def test_only_the_first_of_a_family_is_asked(start: Start, tmp_path: Path) -> None:
    parent = (
        "import os, signal, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "def stop(*_): print(child.poll(), flush=True); child.kill(); os._exit(0)\n"
        "signal.signal(signal.SIGTERM, stop); print('ready', flush=True); time.sleep(600)"
    )
    process = start(identity(), code=parent)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    end_processes(descendants_of(identity()), 10)
    assert process.stdout.readline() == b"None\n"  # the child was alive when its parent was asked
