"""Processes that belong together, found by a mark in their environment: ranks and workers inherit it."""

import os
import signal
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import psutil

from pcd.process_identity import identity, is_alive
from pcd.supervised import SUPERVISOR as SUPERVISOR_MARK

__all__ = [
    "HOME_MARK", "SERVER_MARK", "STAGE_MARK", "SUPERVISOR_MARK",
    "descendants_of", "end_processes", "identity", "is_alive", "kill_tree", "marked_processes", "orphan_servers",
    "orphans", "runs",
]  # fmt: skip

STAGE_MARK: Final = "PCD_STAGE"
"""Names the stage, by its key."""
HOME_MARK: Final = "PCD_HOME"
SERVER_MARK: Final = "PCD_SERVER_OF"
"""Names the `pcd` process that a temporary Prefect server lives for."""

_KERNEL_SECONDS: Final = 10
"""A killed process is there until the kernel has taken back what it holds; one in a broken driver stays for ever."""
_GONE: Final = (psutil.NoSuchProcess, psutil.ZombieProcess)


def descendants_of(supervisor: str, stage: str | None = None) -> list[psutil.Process]:
    """What this supervisor started (of one stage, if its key is given) and what came of that, dead parents or not."""

    def is_ours(environment: Mapping[str, str]) -> bool:
        of_stage = stage is None or environment.get(STAGE_MARK) == stage
        return of_stage and environment.get(SUPERVISOR_MARK) == supervisor

    return marked_processes(is_ours)


def orphans(home: Path, stage: str | None = None) -> list[psutil.Process]:
    """Processes of stages below `home` (of one stage, if its key is given) whose supervisor is dead."""
    place = os.path.realpath(home)

    def is_orphan(environment: Mapping[str, str]) -> bool:
        return (
            SUPERVISOR_MARK in environment
            and os.path.realpath(environment.get(HOME_MARK, "")) == place
            and (stage is None or environment.get(STAGE_MARK) == stage)
            and not is_alive(environment[SUPERVISOR_MARK])
        )

    return marked_processes(is_orphan)


def orphan_servers(home: Path, spared: Collection[str] = ()) -> list[psutil.Process]:
    """Temporary Prefect servers over the database of `home` whose owner is dead, unless it is `spared`."""
    place = os.path.realpath(home)

    def is_orphan(environment: Mapping[str, str]) -> bool:
        owner = environment.get(SERVER_MARK)
        return (
            owner is not None
            and os.path.realpath(environment.get(HOME_MARK, "")) == place
            and owner not in spared
            and not is_alive(owner)
        )

    return marked_processes(is_orphan)


def marked_processes(is_wanted: Callable[[Mapping[str, str]], bool]) -> list[psutil.Process]:
    """Processes whose environment, as it was when they were started, is wanted, and all below them; never this one."""
    found: dict[int, psutil.Process] = {}
    for process in _own_processes():
        with suppress(*_GONE, psutil.AccessDenied, OSError):
            if is_wanted(process.environ()):
                found[process.pid] = process
                found |= {child.pid: child for child in process.children(recursive=True)}
    found.pop(os.getpid(), None)
    return [process for process in found.values() if runs(process)]


def _own_processes() -> Iterator[psutil.Process]:
    """This user's; the environment of others is not ours to read."""
    user = os.getuid()
    for pid in psutil.pids():
        with suppress(*_GONE, OSError):
            if Path(f"/proc/{pid}").stat().st_uid == user or not Path("/proc/self").exists():
                yield psutil.Process(pid)


def end_processes(processes: Iterable[psutil.Process], seconds: float) -> None:
    """SIGTERM, then `seconds` for a checkpoint, then SIGKILL to what is left of them and of their children.

    SIGTERM goes to those whose parent is not among them: an agent tells its ranks, and a rank needs its workers.
    """
    listed = [process for process in processes if runs(process)]
    ids = {process.pid for process in listed}
    for process in listed:
        with suppress(*_GONE, psutil.AccessDenied):
            if process.ppid() not in ids:
                process.send_signal(signal.SIGTERM)
    end = time.monotonic() + seconds
    while any(runs(process) for process in listed) and time.monotonic() < end:
        time.sleep(0.05)
    for process in listed:
        kill_tree(process)


def kill_tree(process: psutil.Process) -> None:
    """SIGKILL to a process and all below it; returns when they are gone."""
    doomed = [process]
    with suppress(*_GONE):
        doomed += process.children(recursive=True)
    for one in doomed:
        with suppress(*_GONE, psutil.AccessDenied):
            one.kill()
    end = time.monotonic() + _KERNEL_SECONDS
    while any(runs(one) for one in doomed) and time.monotonic() < end:
        time.sleep(0.01)


def runs(process: psutil.Process) -> bool:
    """A zombie does not, and a process that has got the id of one that ended is another one."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except _GONE:
        return False
