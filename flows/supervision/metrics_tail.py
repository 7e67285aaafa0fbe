"""Follows a metrics.jsonl that grows, whoever writes it."""

import json
import os
from pathlib import Path
from typing import Any

__all__ = ["MetricLine", "MetricsTail", "read_lines"]

MetricLine = dict[str, Any]
"""One line of metrics.jsonl: step, total, time, and figures."""


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
        return _parse(whole)


def read_lines(path: Path) -> list[MetricLine]:
    """All whole lines; none if there is no such file."""
    try:
        block = path.read_bytes()
    except FileNotFoundError:
        return []
    return _parse(block[: block.rfind(b"\n") + 1])


def _parse(block: bytes) -> list[MetricLine]:
    """Without the line that a kill or a full disk cut short, wherever it stands: the next one was written behind it."""
    lines = []
    for text in block.splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict):
            lines.append(line)
    return lines
