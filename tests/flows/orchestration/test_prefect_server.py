"""The temporary server's process without Prefect in it: who starts it, and who ends it."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from flows.journal import Journal, Run
from flows.orchestration import prefect_server
from flows.orchestration.prefect_server import api_address, connect, pages_address
from flows.reconcile import reconcile
from flows.supervision.processes import SERVER_MARK, identity, orphan_servers, runs
from pcd.errors import PCDError
from tests.conftest import ROOT
from tests.patience import PATIENCE
from tests.servers import free_port

_OWNER = """
import pathlib, sys, time
from flows.orchestration.prefect_server import _OwnServer
server = _OwnServer([sys.executable, "-c", "import time; time.sleep(600)"], pathlib.Path(sys.argv[1]))
first = server.process
first.kill()
while server.process is first:
    time.sleep(0.05)
print(server.process.pid, server._warden.process.pid, flush=True)
time.sleep(600)
"""


@contextmanager
def _killed_owner(log: Path) -> Iterator[tuple[psutil.Process, psutil.Process]]:
    """A server that was started again, and the warden over its owner, which is killed behind the block."""
    with subprocess.Popen(
        [sys.executable, "-c", _OWNER, str(log)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        server, warden = (psutil.Process(int(pid)) for pid in owner.stdout.readline().split())
        yield server, warden
        owner.kill()


def test_a_server_does_not_outlive_an_owner_that_was_killed_before_it_had_a_run(pcd_home: Path, tmp_path: Path) -> None:
    with _killed_owner(tmp_path / "log") as (server, warden):
        pass
    psutil.wait_procs([server, warden], timeout=PATIENCE)
    assert not runs(server)
    assert not runs(warden)


def test_a_server_whose_owner_died_with_its_warden_is_ended_by_the_next_run(pcd_home: Path, tmp_path: Path) -> None:
    with _killed_owner(tmp_path / "log") as (server, warden):
        reconcile(pcd_home)
        assert runs(server)  # its owner lives
        warden.kill()
    reconcile(tmp_path / "another home")
    assert runs(server)
    reconcile(pcd_home)
    assert not runs(server)


_KILLED_AT_FIRST = """
import http.server, os, pathlib, signal, sys
begun = pathlib.Path(sys.argv[2])
if not begun.exists():
    begun.touch()
    os.kill(os.getpid(), signal.SIGKILL)
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), http.server.SimpleHTTPRequestHandler).serve_forever()
"""


def test_a_server_that_is_killed_while_it_starts_is_started_again(
    pcd_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefect_server, "_own", [])
    port = free_port()
    command = [sys.executable, "-c", _KILLED_AT_FIRST, str(port), str(tmp_path / "begun")]
    prefect_server._start_own(command, tmp_path / "log", f"http://127.0.0.1:{port}")
    (server,) = prefect_server._own
    assert server.process.poll() is None
    server.stop()


def test_a_server_that_ends_by_itself_while_it_starts_is_given_up(
    pcd_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefect_server, "_own", [])
    with pytest.raises(PCDError, match="the Prefect server did not start; its log is"):
        prefect_server._start_own([sys.executable, "-c", "raise SystemExit(1)"], tmp_path / "log", "http://127.0.0.1:9")
    prefect_server._own[0].stop()


def test_a_server_that_is_being_started_again_does_not_outlive_its_run(
    pcd_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = prefect_server._OwnServer([sys.executable, "-c", "import time; time.sleep(600)"], tmp_path / "log")
    begun, done, started = threading.Event(), threading.Event(), [server.process]
    start = server._start

    def start_slowly() -> "subprocess.Popen[bytes]":
        begun.set()
        time.sleep(1)
        started.append(start())
        done.set()
        return started[-1]

    monkeypatch.setattr(server, "_start", start_slowly)
    server.process.kill()
    assert begun.wait(PATIENCE)
    server.stop()
    assert done.wait(PATIENCE)
    left = [process.pid for process in started if process.poll() is None]
    for process in started:
        process.kill()
        process.wait()
    assert (len(started), left) == (2, [])


def test_of_a_run_that_another_process_closes_the_server_is_left_to_that(pcd_home: Path) -> None:
    with subprocess.Popen(["sleep", "600"]) as owner:
        mark = identity(owner.pid)
        owner.kill()
    journal = Journal.begin(Run("1", "a", "k", mark, 1.0, {}, {}, {}, "", ""), pcd_home)
    marks = {SERVER_MARK: mark, "PCD_HOME": str(pcd_home)}
    with subprocess.Popen(["sleep", "600"], env=marks) as server:
        reconcile(pcd_home, only=journal.path.with_name("another.json"))
        assert server.poll() is None
        assert [process.pid for process in orphan_servers(pcd_home)] == [server.pid]
        server.kill()


def test_without_an_address_the_pages_are_those_of_pcd_ui(pcd_home: Path) -> None:
    assert (api_address(), pages_address()) == ("", "http://127.0.0.1:4200")


def test_a_password_in_the_address_is_in_no_link_and_no_message(
    pcd_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://me:hidden@127.0.0.1:9/api")
    assert pages_address() == "http://127.0.0.1:9"
    with pytest.raises(PCDError, match=r"PREFECT_API_URL=http://127\.0\.0\.1:9/api \(.*refused") as caught:
        connect(tmp_path / "log")
    assert "hidden" not in str(caught.value)
