"""Where a pool of images lies: files in a folder, or tar shards; read by plans and checks too, so without torch."""

import json
import os
from pathlib import Path
from typing import Final

from pcd.errors import PCDError

__all__ = ["IMAGE_SUFFIXES", "is_image", "list_images", "list_pool", "pool_folder"]

IMAGE_SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
_SUFFIXES: Final = ", ".join(sorted(IMAGE_SUFFIXES))


def pool_folder(data: Path) -> Path:
    """The pool of unlabelled images that a data stage's folder names in its data.json."""
    return data / str(json.loads((data / "data.json").read_text())["pool"])


def is_image(name: str) -> bool:
    return name[name.rfind(".") :].lower() in IMAGE_SUFFIXES


def list_images(folder: Path) -> list[Path]:
    """All images below `folder`, sorted. Raises PCDError if it is missing or holds none."""
    images, _ = _images_and_shards(folder)
    if not images:
        raise PCDError(f"no images in {folder} (looked for {_SUFFIXES}, also in its subfolders)")
    return images


def list_pool(pool: Path) -> list[Path]:
    """What a pool consists of, sorted: its image files or, where it has none, its shards (tar files).

    Args:
        pool: a folder, searched with its subfolders, or a pattern of shards such as `shards/train-*.tar`.

    Raises:
        PCDError: there is nothing of the kind.
    """
    if pool.suffix == ".tar" and not pool.is_dir():
        shards = sorted(pool.parent.glob(pool.name))
        if not shards:
            raise PCDError(f"no shard fits {pool}; give a folder or a pattern of *.tar in the setting data.pool")
        return shards
    images, shards = _images_and_shards(pool)
    if not (images or shards):
        raise PCDError(f"no images in {pool} (looked for {_SUFFIXES} and .tar, also in its subfolders)")
    return images or shards


def _images_and_shards(folder: Path) -> tuple[list[Path], list[Path]]:
    if not folder.is_dir():
        raise PCDError(f"image folder {folder} does not exist; give one with images in the setting data.pool")
    images: list[Path] = []
    shards: list[Path] = []
    entered = {os.path.realpath(folder)}
    # Ten times quicker than rglob and is_file where there are a million. Subsets are often made of linked folders.
    for root, folders, names in os.walk(folder, onerror=_cannot_list, followlinks=True):
        folders[:] = [name for name in folders if not _was_entered(Path(root, name), entered)]
        images += (Path(root, name) for name in names if is_image(name))
        shards += (Path(root, name) for name in names if name.endswith(".tar"))
    return sorted(images, key=_parts), sorted(shards, key=_parts)


def _cannot_list(error: OSError) -> None:
    raise PCDError(f"cannot list {error.filename} ({error.strerror}); check the pool's file system")


def _was_entered(folder: Path, entered: set[str]) -> bool:
    """Through a link, whose target may be one of the folders above it."""
    if not folder.is_symlink():
        return False
    place = os.path.realpath(folder)
    if place in entered:
        return True
    entered.add(place)
    return False


def _parts(path: Path) -> tuple[str, ...]:
    return path.parts
