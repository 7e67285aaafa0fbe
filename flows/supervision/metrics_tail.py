"""Follows a metrics.jsonl that grows, whoever writes it."""

import os
from pathlib import Path

from eval.metric_lines import MetricLine, parse_metric_lines

__all__ = ["MetricsTail"]


class MetricsTail:
    """Whole new lines of a growing file. One that was replaced is told from its start; step numbers tell doubles."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._position, self._inode = (path.stat().st_size, path.stat().st_ino) if path.exists() else (0, 0)

    def new_lines(self) -> list[MetricLine]:
        try:
            with self.path.open("rb") as file:
                number = os.fstat(file.fileno()).st_ino
                if number != self._inode:  # a resumed stage wrote it anew, without what it has to do again
                    self._position = 0 if self._inode else self._position
                    self._inode = number
                file.seek(self._position)
                block = file.read()
        except FileNotFoundError:
            return []
        whole = block[: block.rfind(b"\n") + 1]
        self._position += len(whole)
        return parse_metric_lines(whole)
