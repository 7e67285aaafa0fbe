"""Where a pool of images lies: files in a folder, or tar shards; read by plans and checks too, so without torch."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pcd.errors import PCDError

__all__ = ["IMAGE_SUFFIXES", "Listing", "is_image", "list_images", "pool_folder", "scan_images", "scan_pool"]

IMAGE_SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
_SUFFIXES: Final = ", ".join(sorted(IMAGE_SUFFIXES))


@dataclass(frozen=True, slots=True)
class Listing:
    """Files below a folder with their lengths, in the order of their paths' parts."""

    folder: Path
    names: list[str]
    """Paths relative to the folder."""
    sizes: list[int]
    """Bytes."""

    def __len__(self) -> int:
        return len(self.names)

    @property
    def is_of_images(self) -> bool:
        """False: of shards."""
        return is_image(self.names[0])

    @property
    def paths(self) -> list[Path]:
        return [self.folder / name for name in self.names]

    def fingerprint(self) -> str:
        """SHA-256 over relative paths and sizes; bytes are not read, since ImageNet has 150 GB."""
        digest = hashlib.sha256()
        for name, size in zip(self.names, self.sizes, strict=True):
            digest.update(os.fsencode(name) + b"\0%d\n" % size)
        return digest.hexdigest()


def pool_folder(data: Path, places: Mapping[str, str] | None = None) -> Path:
    """The pool of unlabelled images: `pool` of `places` (where it lies on this machine), or as data.json names it."""
    if places and "pool" in places:
        return Path(places["pool"])
    return data / str(json.loads((data / "data.json").read_text())["pool"])


def is_image(name: str) -> bool:
    return name[name.rfind(".") :].lower() in IMAGE_SUFFIXES


def list_images(folder: Path) -> list[Path]:
    """All images below `folder`, sorted. Raises PCDError if it is missing or holds none."""
    return [folder / name for name, _ in _images(folder)]


def scan_images(folder: Path) -> Listing:
    """The same with their lengths."""
    return _listing(folder, _images(folder))


def scan_pool(pool: Path) -> Listing:
    """What a pool consists of, with their lengths: its image files or, where it has none, its shards (tar files).

    Args:
        pool: a folder, searched with its subfolders, or a pattern of shards such as `shards/train-*.tar`, which counts
            as the folder they lie in.

    Raises:
        PCDError: there is nothing of the kind.
    """
    return _listing(*_pool_files(pool))


_File = tuple[str, "os.DirEntry[str]"]


def _images(folder: Path) -> list[_File]:
    images = [file for file in _files(folder) if is_image(file[0])]
    if not images:
        raise PCDError(f"no images in {folder} (looked for {_SUFFIXES}, also in its subfolders)")
    return images


def _pool_files(pool: Path) -> tuple[Path, list[_File]]:
    if pool.suffix == ".tar" and not pool.is_dir():
        # Only the last part may be a pattern, and its shards lie in one folder.
        matching = {path.name for path in pool.parent.glob(pool.name)}
        shards = [(entry.name, entry) for entry in _entries(pool.parent) if entry.name in matching] if matching else []
        if not shards:
            raise PCDError(f"no shard fits {pool}; give a folder or a pattern of *.tar in the setting data.pool")
        return pool.parent, shards
    files = list(_files(pool))
    images = [file for file in files if is_image(file[0])]
    if not files:
        raise PCDError(f"no images in {pool} (looked for {_SUFFIXES} and .tar, also in its subfolders)")
    return pool, images or files


def _listing(folder: Path, files: list[_File]) -> Listing:
    sizes = []
    for name, entry in files:
        try:
            sizes.append(entry.stat().st_size)
        except OSError as error:
            raise PCDError(f"cannot read {folder / name} ({error.strerror}); mend or remove it") from None
    return Listing(folder, [name for name, _ in files], sizes)


def _files(folder: Path) -> Iterator[_File]:
    """Every image and shard below `folder`, in order."""
    if not folder.is_dir():
        raise PCDError(f"image folder {folder} does not exist; give one with images in the setting data.pool")
    yield from _walk(folder, "", {os.path.realpath(folder)})


def _walk(folder: Path, prefix: str, entered: set[str]) -> Iterator[_File]:
    # Strings and directory entries, no Path for each: ten times quicker than rglob where there are a million.
    for entry in _entries(folder):
        if entry.is_dir():
            if not _was_entered(entry, entered):
                yield from _walk(folder / entry.name, f"{prefix}{entry.name}/", entered)
        elif is_image(entry.name) or entry.name.endswith(".tar"):
            yield prefix + entry.name, entry


def _entries(folder: Path) -> "list[os.DirEntry[str]]":
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise PCDError(f"cannot list {error.filename} ({error.strerror}); check the pool's file system") from None


def _was_entered(entry: "os.DirEntry[str]", entered: set[str]) -> bool:
    """Through a link, whose target may be one of the folders above it. Subsets are often made of linked folders."""
    if not entry.is_symlink():
        return False
    place = os.path.realpath(entry.path)
    if place in entered:
        return True
    entered.add(place)
    return False
