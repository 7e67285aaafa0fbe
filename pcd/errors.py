"""The one error that a user is meant to read."""

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = ["PCDError", "StageFailedError", "StageStoppedError", "unknown_name"]


class PCDError(Exception):
    """Something the user can mend. The message is one line: what happened, where, and what to do.

    Commands print it without a traceback and exit with code 2. Every other exception is a fault of ours and keeps its
    traceback.
    """


class StageFailedError(Exception):
    """A stage process ended badly, for a reason that trying again may mend. The message is for people."""


class StageStoppedError(Exception):
    """A stage was asked to stop, and did. The message says how; the same command goes on from its last checkpoint."""

    def __init__(self, message: str, *, alone: bool = False) -> None:
        """`alone`: this stage was stopped by name (`pcd stop`), and not the run that it belongs to."""
        super().__init__(message)
        self.alone = alone


def unknown_name(kind: str, name: str, valid: Iterable[str]) -> PCDError:
    """An error for a misspelt name, with the nearest valid one: unknown teacher "demmo"; did you mean "demo"?"""
    names = sorted(valid)
    nearest = get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f'did you mean "{nearest[0]}"?' if nearest else "there is none like it;"
    return PCDError(f'unknown {kind} "{name}": {hint} valid: {", ".join(names)}')
