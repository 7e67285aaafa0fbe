"""Image files in a folder; read by plans and checks too, so without torch."""

import json
from pathlib import Path
from typing import Final

from pcd.errors import PCDError

__all__ = ["IMAGE_SUFFIXES", "list_images", "pool_folder"]

IMAGE_SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})


def pool_folder(data: Path) -> Path:
    """The pool of unlabelled images that a data stage's folder names in its data.json."""
    return data / str(json.loads((data / "data.json").read_text())["pool"])


def list_images(folder: Path) -> list[Path]:
    """All images below `folder`, sorted. Raises PCDError if it is missing or holds none."""
    if not folder.is_dir():
        raise PCDError(f"image folder {folder} does not exist; give one with images in the setting data.pool")
    images = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
    if not images:
        raise PCDError(
            f"no images in {folder} (looked for {', '.join(sorted(IMAGE_SUFFIXES))}, also in its subfolders)"
        )
    return images
