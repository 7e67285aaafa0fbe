"""A JSON object on the disk, for readers that do without what is not there."""

import json
from pathlib import Path
from typing import Any

__all__ = ["json_object"]


def json_object(path: Path) -> dict[str, Any]:
    """Empty where there is no file, or one that holds no JSON object."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
