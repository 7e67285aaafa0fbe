"""A stage's metrics.jsonl, read (pcd.stage.Metrics writes it)."""

import json
from pathlib import Path
from typing import Any

__all__ = ["read_metric_lines"]


def read_metric_lines(path: Path) -> list[dict[str, Any]]:
    """Every whole line, with `step`, `total`, `time` and figures; none if there is no such file.

    A line that a kill or a full disk cut short is passed over, wherever it stands: the next one was written behind it.
    """
    found = []
    for text in path.read_text().splitlines() if path.exists() else ():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict):
            found.append(line)
    return found
