"""What a stage process owes its supervisor, in processes that are killed. Stages as a whole: test_stage.py."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pcd.process_identity import is_alive
from tests.patience import PATIENCE

PARENT = """
import os, sys, threading, time
from pathlib import Path
from pcd.process_identity import identity
from pcd.supervised import hold_folder, obey_supervisor

def fork_and_tell():
    if os.fork() == 0:
        Path(sys.argv[1], "child.part").write_text(identity())
        Path(sys.argv[1], "child.part").rename(Path(sys.argv[1], "child"))
        time.sleep(600)

assert obey_supervisor(lambda: None)
assert hold_folder(Path(sys.argv[1]), lambda: True, lambda: None)
if sys.argv[2] == "by the main thread":
    fork_and_tell()
else:
    thread = threading.Thread(target=fork_and_tell)
    thread.start()
    thread.join()
time.sleep(600)
"""


@pytest.fixture
def start(tmp_path: Path, stage_environment: dict[str, str]) -> Iterator[Callable[[str], subprocess.Popen[bytes]]]:
    """Start a process that holds tmp_path and has forked a child, whose identity stands in the file `child`."""
    children: list[str] = []

    def run(forked: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path), forked], env=stage_environment)
        wait_until((tmp_path / "child").exists)
        children.append((tmp_path / "child").read_text())
        return process

    yield run
    for child in children:
        if is_alive(child):
            subprocess.run(["kill", "-9", child.partition(":")[0]], check=False)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def test_what_a_stage_forked_dies_with_it(start: Callable[[str], subprocess.Popen[bytes]], tmp_path: Path) -> None:
    kill(start("by the main thread"))
    child = (tmp_path / "child").read_text()
    wait_until(lambda: not is_alive(child))


def test_what_a_thread_forked_outlives_the_thread(
    start: Callable[[str], subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    parent = start("by a thread that ends")
    time.sleep(0.3)
    assert is_alive((tmp_path / "child").read_text())
    kill(parent)


def test_what_a_stage_forked_does_not_hold_its_folder(
    start: Callable[[str], subprocess.Popen[bytes]], tmp_path: Path, stage_environment: dict[str, str]
) -> None:
    kill(start("by a thread that ends"))
    assert is_alive((tmp_path / "child").read_text())
    again = (
        "import sys; from pathlib import Path; from pcd.supervised import hold_folder\n"
        "sys.exit(not hold_folder(Path(sys.argv[1]), lambda: False, lambda: None))"
    )
    done = subprocess.run([sys.executable, "-c", again, str(tmp_path)], env=stage_environment, check=False)
    assert done.returncode == 0


def test_a_folder_that_is_held_is_waited_for_as_long_as_wanted(
    start: Callable[[str], subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    from pcd.supervised import hold_folder

    parent = start("by the main thread")
    told: list[str] = []
    patience = iter([True, True, False])
    assert not hold_folder(tmp_path, lambda: next(patience), lambda: told.append("waiting"))
    assert told == ["waiting"]
    kill(parent)
