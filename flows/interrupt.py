"""SIGTERM and SIGHUP end a command as Ctrl-C does: with its `finally` blocks, so that no process is left behind."""

import signal
from types import FrameType

__all__ = ["treat_sigterm_as_ctrl_c"]


def treat_sigterm_as_ctrl_c() -> None:
    for number in (signal.SIGTERM, signal.SIGHUP):  # SIGHUP: the terminal was closed
        signal.signal(number, _interrupt)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
