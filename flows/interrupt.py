"""SIGTERM ends a command as Ctrl-C does: with its `finally` blocks, so that no process of its own is left behind."""

import signal
from types import FrameType

__all__ = ["treat_sigterm_as_ctrl_c"]


def treat_sigterm_as_ctrl_c() -> None:
    signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
