"""The Prefect server that a run talks to: the user's own, or one that lives as long as the run."""

import atexit
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Final

from filelock import FileLock

from flows.home import PREFECT_PORT, home
from flows.logins import without_login
from flows.orchestration.health import reason_for_silence
from flows.supervision.processes import HOME_MARK, SERVER_MARK, identity
from flows.supervision.supervisor import stop_group
from flows.supervision.warden import END_SERVERS, start_warden
from pcd.errors import PCDError

__all__ = ["api_address", "connect", "own_server", "pages_address"]

_log = logging.getLogger(__name__)

_START_SECONDS: Final = 180  # its first start migrates the database
_STOP_SECONDS: Final = 15
_LOOK_SECONDS: Final = 1.0
_NEEDLESS: Final = (
    *("SCHEDULER", "LATE_RUNS", "FOREMAN", "TRIGGERS", "PAUSE_EXPIRATIONS", "CANCELLATION_CLEANUP"),
    *("CLEANUP_RECONCILER", "EVENT_LOGGER"),
)
"""Services for deployments and workers, of which a temporary server has none; they poll, next to what trains."""


class _OwnServer:
    """A temporary server, started again if it dies while the run goes on: its database is on the disk."""

    def __init__(self, command: list[str], log: Path) -> None:
        self._command = command
        self._log = log
        self._over = threading.Event()
        # First: a `pcd` that is killed before its run is written down has no other warden.
        self._warden = start_warden(home(), log, stop_seconds=None, then=END_SERVERS)
        self.process = self._start()
        self._watching = threading.Thread(target=self._watch, name="prefect-server", daemon=True)
        self._watching.start()

    def _start(self) -> subprocess.Popen[bytes]:
        idle = {f"PREFECT_SERVER_SERVICES_{name}_ENABLED": "false" for name in _NEEDLESS}
        # Whoever closes a run that was killed finds its server by these, also one of which no journal knows.
        marks = {SERVER_MARK: identity(), HOME_MARK: str(home())}
        with self._log.open("ab") as output:
            return subprocess.Popen(
                self._command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                env=os.environ | idle | marks, start_new_session=True,
            )  # fmt: skip

    def _watch(self) -> None:
        while not self._over.wait(_LOOK_SECONDS):
            if self.process.poll() is not None:
                _log.warning("the Prefect server ended with code %d; it is started again", self.process.returncode)
                self.process = self._start()

    def stop(self) -> None:
        self._over.set()
        self._watching.join()  # first: it may be about to start another one, which nobody would stop
        stop_group(self.process, _STOP_SECONDS)
        self._warden.done()


_own: list[_OwnServer] = []


def connect(log: Path) -> None:
    """Set PREFECT_API_URL to a server that answers; to be called before Prefect is imported.

    Prefect would start a temporary server by itself, but in our process group: Ctrl-C would end it at once, before the
    flow's last state is settled. Ours runs in a session of its own and ends when this process does.

    Raises PCDError if the user's server does not answer, or ours does not start.
    """
    url = os.environ.get("PREFECT_API_URL")
    if url:
        reason = reason_for_silence(url)
        if reason:
            raise PCDError(
                f"no Prefect server answers at PREFECT_API_URL={without_login(url)} ({reason}); start it, or unset it"
            )
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    url = f"http://127.0.0.1:{port}/api"
    # The first to start makes the database's tables; two at once would break each other's.
    with FileLock(home() / "prefect-starts.lock"):
        _start_own(command, log, url)
    os.environ["PREFECT_API_URL"] = url


def _start_own(command: list[str], log: Path, url: str) -> None:
    server = _OwnServer(command, log)
    _own.append(server)
    atexit.register(server.stop)  # before Prefect's own, which still send the last logs
    first, deadline = server.process, time.monotonic() + _START_SECONDS
    while reason_for_silence(url):
        code = first.poll()
        gave_up = code is not None and code >= 0  # one that was killed is started again
        if gave_up or time.monotonic() > deadline:
            raise PCDError(f"the Prefect server did not start; its log is {log}")
        time.sleep(0.2)


def own_server() -> str | None:
    """The process identity of the temporary server, if there is one."""
    return identity(_own[0].process.pid) if _own else None


def api_address() -> str:
    """That of PREFECT_API_URL, else of the user's Prefect profile; empty if there is none."""
    url = os.environ.get("PREFECT_API_URL")
    if url is None:
        from prefect.settings import PREFECT_API_URL

        url = PREFECT_API_URL.value()
    return url or ""


def pages_address() -> str:
    """Where the run's page is: on the user's server, or on the one that `pcd ui` starts over the same database."""
    if _own or not api_address():
        return f"http://127.0.0.1:{PREFECT_PORT}"
    return without_login(api_address()).rstrip("/").removesuffix("/api")
