"""How quickly a loop gets on, and how much of its time goes by waiting for data."""

import time
from collections.abc import Iterator
from itertools import islice
from typing import TypeVar

__all__ = ["Pace"]

_Batch = TypeVar("_Batch")


class Pace:
    """Since the last restart: steps, seconds, and those of the seconds in which batches were waited for."""

    def __init__(self, done: int) -> None:
        """`done`: steps that were done when the loop began."""
        self.restart(done)

    def restart(self, done: int) -> None:
        self._began_at, self._done, self._waited = time.monotonic(), done, 0.0

    def wait_for(self, batches: Iterator[_Batch], count: int) -> list[_Batch]:
        """The next `count` batches."""
        asked_at = time.monotonic()
        taken = list(islice(batches, count))
        self._waited += time.monotonic() - asked_at
        return taken

    def figures(self, done: int, images: int) -> dict[str, float]:
        """`images_per_second`, of so many `images` a step, and `waiting_for_data`, a share of the time, 0 to 1."""
        seconds = time.monotonic() - self._began_at
        return {
            "images_per_second": (done - self._done) * images / seconds,
            "waiting_for_data": self._waited / seconds,
        }
