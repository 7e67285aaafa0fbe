"""Tells a stage that hangs from one that is slow: by files that change, and never by the date."""

import time
from pathlib import Path
from typing import Final

from pcd.stage import ACTIVITY

__all__ = ["StallWatch"]

_SIGNS: Final = ("metrics.jsonl", ACTIVITY, "log.txt", "checkpoint.json", "checkpoint.pt", "result.json")
_COUNTED_AT_MOST: Final = 5.0
"""Seconds between two looks that count: a supervisor that was itself suspended has seen nothing of the stage."""


class StallWatch:
    def __init__(self, work: Path) -> None:
        self._files = [work / name for name in _SIGNS]
        self._signs = self._look()
        self._looked = time.monotonic()
        self.quiet = 0.0
        """Seconds without a sign of progress."""

    def look(self) -> None:
        """To be called often."""
        now, signs = time.monotonic(), self._look()
        self.quiet = 0.0 if signs != self._signs else self.quiet + min(now - self._looked, _COUNTED_AT_MOST)
        self._looked, self._signs = now, signs

    def _look(self) -> list[tuple[int, int, int] | None]:
        return [_signature(path) for path in self._files]


def _signature(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
