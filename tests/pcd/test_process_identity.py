import os
import subprocess
import time

import pytest

from pcd.process_identity import identity, is_alive


def test_this_process_is_alive() -> None:
    assert is_alive(identity())
    assert identity() == identity(os.getpid())


def test_a_process_that_has_ended_is_not() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        mark = identity(process.pid)
        assert is_alive(mark)
        process.kill()
    assert not is_alive(mark)
    with pytest.raises(ProcessLookupError):
        identity(process.pid)


def test_a_zombie_is_not_alive() -> None:
    process = subprocess.Popen(["sleep", "60"])
    mark = identity(process.pid)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and is left unburied
    assert not is_alive(mark)
    process.wait()


def test_another_process_with_the_same_id_is_not_meant() -> None:
    pid, start = identity().split(":")
    assert not is_alive(f"{pid}:1{start}")


@pytest.mark.parametrize(
    "mark", ["", ":", "x", "1", "1:", "-1:2", pytest.param(f"{os.getpid()}", id="only its number")]
)
def test_what_names_no_process_is_not_alive(mark: str) -> None:
    assert not is_alive(mark)


def test_no_change_of_the_clock_changes_who_a_process_is(monkeypatch: pytest.MonkeyPatch) -> None:
    mark = identity()
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert is_alive(mark)
