"""Which process is meant: a process id may be another's by tomorrow, the id with the moment of its start may not."""

import os
from pathlib import Path

__all__ = ["identity", "is_alive"]

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def identity(pid: int | None = None) -> str:
    """`pid:start` of this process or another one; `start` is opaque, and no change of the clock moves it.

    Raises ProcessLookupError if there is no such process, or if it has ended and only waits for its parent.
    """
    pid = os.getpid() if pid is None else pid
    start = _start(pid)
    if start is None:
        raise ProcessLookupError(f"there is no process {pid}")
    return f"{pid}:{start}"


def is_alive(mark: str) -> bool:
    """Whether the process that `identity` once named is still there."""
    pid, _, start = mark.partition(":")
    return pid.isdecimal() and start != "" and _start(int(pid)) == start


def _start(pid: int) -> str | None:
    """Linux: clock ticks since the machine was started, and when that was by a name, since ticks begin anew then."""
    if not _BOOT_ID.exists():
        return _start_elsewhere(pid)
    try:
        # The command's name stands in brackets, and may hold any character.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, ticks = fields[0], fields[19]
    return None if state in "ZX" else f"{ticks}-{_BOOT_ID.read_text()[:8]}"


def _start_elsewhere(pid: int) -> str | None:
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else str(process.create_time())
    except psutil.NoSuchProcess:
        return None
