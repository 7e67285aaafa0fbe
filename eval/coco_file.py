"""A file of COCO annotations, read; what its records have to be is eval.coco_check's."""

import json
from pathlib import Path
from typing import Any

from pcd.errors import PCDError

__all__ = ["parse_coco"]


def parse_coco(annotations: Path) -> dict[str, Any]:
    """A JSON file with the three lists. Raises PCDError."""
    try:
        raw = json.loads(annotations.read_text())
    except FileNotFoundError:
        raise PCDError(f"annotation file {annotations} does not exist; check the data settings") from None
    except OSError as error:
        raise PCDError(f"annotation file {annotations} cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:  # brackets can be nested more deeply than Python reads
        raise PCDError(f"{annotations} is not JSON ({error}); download or export it again") from None
    for key in ("images", "annotations", "categories"):
        if not isinstance(raw, dict) or not isinstance(raw.get(key), list):
            raise PCDError(f'{annotations} has no list "{key}"; a COCO file has images, annotations and categories')
    whole: dict[str, Any] = raw
    return whole
