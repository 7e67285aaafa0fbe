"""How a stage's process lives and dies with the supervisor that started it, and keeps its folder to itself."""

import ctypes
import errno
import fcntl
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Final

from pcd.process_identity import is_alive

__all__ = ["STOP_SECONDS", "SUPERVISOR", "hold_folder", "obey_supervisor"]

SUPERVISOR: Final = "PCD_SUPERVISOR"
"""Identity of the process that started this one, or the agent that did (see pcd.process_identity)."""
STOP_SECONDS: Final = "PCD_STOP_SECONDS"
"""Seconds for a checkpoint, after which a process without a supervisor ends itself."""

_PR_SET_PDEATHSIG: Final = 1
_LOOK_EVERY_SECONDS: Final = 1.0
_WAIT_SECONDS: Final = 0.2


def obey_supervisor(request_stop: Callable[[], None]) -> bool:
    """Let SIGTERM, SIGINT and the supervisor's death request a stop; returns False if it is dead already.

    A rank's parent is torchrun's agent, which may outlive the supervisor or die before it: so both are watched. What
    this process forks (loading workers) is killed by the kernel when it dies.
    """

    def on_signal(signum: int, frame: FrameType | None) -> None:
        request_stop()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    _kill_forks_with_us()
    supervisor = os.environ.get(SUPERVISOR)
    if not supervisor:
        return True
    _signal_when_parent_dies(signal.SIGTERM)
    threading.Thread(target=_outlive_not, args=(supervisor, request_stop), daemon=True).start()
    return is_alive(supervisor)


def _outlive_not(supervisor: str, request_stop: Callable[[], None]) -> None:
    while is_alive(supervisor):
        time.sleep(_LOOK_EVERY_SECONDS)
    request_stop()
    time.sleep(float(os.environ.get(STOP_SECONDS, "60")))
    print("killed: the pcd process that started this one is gone, and it did not stop in time", file=sys.stderr)
    os.kill(os.getpid(), signal.SIGKILL)


def _signal_when_parent_dies(number: signal.Signals) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number)


def _kill_forks_with_us() -> None:
    forked_by: list[tuple[int, bool]] = []

    def before() -> None:
        # The kernel watches the thread that forked, and only the main one lives as long as the process.
        forked_by[:] = [(os.getpid(), threading.current_thread() is threading.main_thread())]

    def in_child() -> None:
        parent, by_main_thread = forked_by[0]
        if by_main_thread:
            _signal_when_parent_dies(signal.SIGKILL)
            if os.getppid() != parent:  # it died before the line above
                os._exit(1)

    os.register_at_fork(before=before, after_in_child=in_child)


def hold_folder(folder: Path, may_go_on: Callable[[], bool], on_wait: Callable[[], None]) -> bool:
    """Lock `folder` until this process ends; its forks do not hold the lock. Returns False if `may_go_on` came to.

    A process whose supervisor was killed may still be saving its checkpoint there: two must not write at once.

    Args:
        on_wait: called once, if another process holds it.
    """
    file = os.open(folder, os.O_RDONLY)  # left open: the lock goes with the process
    os.register_at_fork(after_in_child=lambda: os.close(file))
    has_waited = False
    while not _lock(file):
        if not has_waited:
            on_wait()
            has_waited = True
        if not may_go_on():
            return False
        time.sleep(_WAIT_SECONDS)
    return True


def _lock(folder: int) -> bool:
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.EBADF, errno.EINVAL):
            raise
        print(f"this file system has no locks ({error.strerror}); make sure that nothing else writes here", flush=True)
    return True
