"""The warden of a process that is killed, and of one that ends in order."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from flows.supervision.processes import is_alive, marked_processes, runs
from tests.conftest import ROOT
from tests.patience import PATIENCE

PCD = """
import os, subprocess, sys, time
from pathlib import Path
from flows.supervision.processes import identity
from flows.supervision.warden import start_warden
home = Path(sys.argv[1])
(home / "record").write_text(identity())
marks = {"PCD_SUPERVISOR": identity(), "PCD_STAGE": "k", "PCD_HOME": str(home)}
subprocess.Popen(["sleep", "600"], env=os.environ | marks, start_new_session=True)
with start_warden(home, home / "record", stop_seconds=5, then="tests.flows.supervision.test_warden:close") as warden:
    (home / "pid.part").write_text(str(warden.process.pid))
    (home / "pid.part").rename(home / "pid")
    if sys.argv[2] == "wait":
        time.sleep(600)
    if sys.argv[2] == "end":
        (home / "record").unlink()
time.sleep(1)
"""


def close(home: Path, record: Path) -> str:
    """What the warden calls here in the place of flows.reconcile."""
    assert stages(home) == []
    assert not is_alive(record.read_text())
    record.write_text("closed")
    return "closed"


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def start(home: Path, what: str) -> tuple[subprocess.Popen[bytes], psutil.Process]:
    process = subprocess.Popen([sys.executable, "-c", PCD, str(home), what], cwd=ROOT, start_new_session=True)
    wait_until((home / "pid").exists)
    return process, psutil.Process(int((home / "pid").read_text()))


def is_closed(home: Path) -> bool:
    return (home / "record").read_text() == "closed"


def stages(home: Path) -> list[psutil.Process]:
    return marked_processes(lambda environment: environment.get("PCD_HOME") == str(home) and "PCD_STAGE" in environment)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_pcd_is_cleaned_up_behind(tmp_path: Path, number: signal.Signals) -> None:
    process, warden = start(tmp_path, "wait")
    os.killpg(process.pid, number)  # the whole group, as a terminal or a batch system does
    process.wait()
    wait_until(lambda: is_closed(tmp_path))
    assert stages(tmp_path) == []
    wait_until(lambda: not runs(warden))
    assert "closed" in (tmp_path / "logs" / "warden.log").read_text()


def test_a_warden_hears_no_signal_that_was_meant_for_pcd(tmp_path: Path) -> None:
    process, warden = start(tmp_path, "wait")
    wait_until(lambda: b"flows.supervision.warden" in Path(f"/proc/{warden.pid}/cmdline").read_bytes())
    wait_until(lambda: int(_signals_ignored(warden.pid), 16) & 1 << (signal.SIGTERM - 1) != 0)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        warden.send_signal(number)
    process.kill()
    process.wait()
    wait_until(lambda: is_closed(tmp_path))


def _signals_ignored(pid: int) -> str:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith("SigIgn"))


def test_a_pcd_that_ends_in_order_leaves_nothing_to_do(tmp_path: Path) -> None:
    process, warden = start(tmp_path, "end")
    assert process.wait(PATIENCE) == 0
    assert not runs(warden)
    assert not (tmp_path / "record").exists()
    for stage in stages(tmp_path):
        stage.kill()


def test_what_a_pcd_that_ends_in_order_could_not_tell_is_told_behind_it(tmp_path: Path) -> None:
    process, warden = start(tmp_path, "leave the record")
    assert process.wait(PATIENCE) == 0
    wait_until(lambda: not runs(warden))
    assert is_closed(tmp_path)
    assert stages(tmp_path) == []


def test_a_warden_that_waits_is_small(tmp_path: Path) -> None:
    process, warden = start(tmp_path, "wait")
    wait_until(lambda: int(_signals_ignored(warden.pid), 16) & 1 << (signal.SIGTERM - 1) != 0)
    mapped = Path(f"/proc/{warden.pid}/maps").read_text()
    assert not [name for name in ("libtorch", "psutil", "numpy", "pydantic", "sqlite") if name in mapped]
    assert warden.memory_info().rss < 40 * 2**20
    process.kill()
    process.wait()
    wait_until(lambda: is_closed(tmp_path))


def test_a_pcd_whose_warden_was_killed_ends_all_the_same(tmp_path: Path) -> None:
    process, warden = start(tmp_path, "wait")
    warden.kill()
    assert process.poll() is None
    process.terminate()
    process.wait()
    for stage in stages(tmp_path):
        stage.kill()
