"""A stage's metrics.jsonl, read (pcd.stage.Metrics writes it)."""

import json
from pathlib import Path
from typing import Any

__all__ = ["MetricLine", "parse_metric_lines", "read_metric_lines"]

MetricLine = dict[str, Any]
"""One line of it: step, total, time, and figures."""


def read_metric_lines(path: Path) -> list[MetricLine]:
    """Every whole line; none if there is no such file."""
    try:
        return parse_metric_lines(path.read_bytes())
    except FileNotFoundError:
        return []


def parse_metric_lines(block: bytes) -> list[MetricLine]:
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
