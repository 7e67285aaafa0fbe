"""What stages read from outside the store, by content; each file and folder is looked at once while it stays as it is.

Annotation files and a teacher's own file are hashed once on a machine (their hashes are kept in PCD_HOME/hashes.json by
path, size and time of change); folders of images are listed once in a process.
"""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from eval.settings import CocoData, ShapesData
from flows.home import home
from pcd.errors import PCDError
from pcd.image_folder import Listing, scan_images, scan_pool
from pcd.teachers.entry import PublishedFile
from pcd.teachers.pins import is_known_file, replaced_hash

__all__ = ["MISSING", "InputFiles", "data_files", "file_hash", "image_counts", "supervised_files", "teacher_files"]

MISSING: Final = "missing"
"""Stands for the hash of what is not there."""

_SMALL: Final = 1_000_000
"""Bytes. Smaller files are hashed as quickly as their hash is looked up."""
_SETTLED_SECONDS: Final = 2.0
"""A file that was written less long ago may change again within the clock's grain; its hash is not kept."""


@dataclass(frozen=True, slots=True)
class InputFiles:
    hashes: dict[str, str]
    """Name of each file or folder to a hash of its content, or MISSING."""
    missing: tuple[str, ...] = ()
    """A line for each that is not there: what, where, what to do."""


def data_files(settings: ShapesData | CocoData) -> InputFiles:
    """Of a data stage: annotation files by SHA-256, image folders by their listing."""
    if isinstance(settings, ShapesData):
        return InputFiles({})
    read: dict[str, tuple[Callable[[Path], str], Path]] = {
        "train": (_annotations_hash, settings.train_annotations),
        "val": (_annotations_hash, settings.val_annotations),
        "pool": (_pool_hash, settings.pool),
        "train_images": (_images_hash, settings.train_images),
        "val_images": (_images_hash, settings.val_images),
    }
    hashes, missing = {}, []
    for name, (hash_of, path) in read.items():
        try:
            hashes[name] = hash_of(path)
        except PCDError as error:
            hashes[name] = MISSING
            missing.append(str(error))
    return InputFiles(hashes, tuple(missing))


def teacher_files(entry: PublishedFile, own: Path | None) -> InputFiles:
    """SHA-256 of the user's own file; else of a pinned file that took another one's place, whose results are stale.

    An own file that is the one which would be fetched counts as that one.
    """
    return _weights_files(entry, own, "teacher", "give the publisher's file")


def supervised_files(weights: PublishedFile | None, own: Path | None) -> InputFiles:
    """The same of the arm supervised, for a student of which weights are published or not."""
    return _weights_files(weights, own, "supervised", "give a file of weights")


def _weights_files(entry: PublishedFile | None, own: Path | None, name: str, remedy: str) -> InputFiles:
    replaced = replaced_hash(entry.name, home()) if entry else None
    fetched = InputFiles({name: replaced} if replaced else {})
    if own is None:
        return fetched
    try:
        sha256 = file_hash(own)
    except OSError as error:
        line = f"{name}_file {own} cannot be read ({error.strerror}); {remedy}"
        return InputFiles({name: MISSING}, (line,))
    return fetched if entry and is_known_file(entry, sha256, home()) else InputFiles({name: sha256})


def image_counts(settings: CocoData) -> dict[str, int | None]:
    """Images of pool, train and val where they can be counted without being read; None where they cannot."""
    counts: dict[str, int | None] = {}
    for name, path in (("pool", settings.pool), ("train", settings.train_images), ("val", settings.val_images)):
        try:
            listing = _listing(path, scan_pool if name == "pool" else scan_images)
        except PCDError:
            counts[name] = None
            continue
        counts[name] = len(listing) if listing.is_of_images else sum(listing.sizes) // _SHARD_BYTES_PER_IMAGE
    return counts


_SHARD_BYTES_PER_IMAGE: Final = 110_000
"""Of ImageNet; to count the images of shards exactly, each of them has to be read."""


def file_hash(path: Path) -> str:
    """SHA-256. Raises OSError."""
    status = path.stat()
    identity = {"bytes": status.st_size, "mtime_ns": status.st_mtime_ns}
    if status.st_size < _SMALL:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    kept = _read_kept().get(str(path))
    if isinstance(kept, dict) and identity.items() <= kept.items() and isinstance(kept.get("sha256"), str):
        return str(kept["sha256"])
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if time.time() - status.st_mtime > _SETTLED_SECONDS:
        _keep(path, identity | {"sha256": sha256})
    return sha256


def _kept_file() -> Path:
    return home() / "hashes.json"


def _read_kept() -> dict[str, Any]:
    try:
        kept = json.loads(_kept_file().read_text())
    except (OSError, ValueError):
        return {}
    return kept if isinstance(kept, dict) else {}


def _keep(path: Path, record: Mapping[str, Any]) -> None:
    """Two processes may do so at once: the later one's file stands, and what the other kept is hashed once more."""
    temporary = _kept_file().with_name(f".hashes.json.{os.getpid()}")
    try:
        temporary.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(_read_kept() | {str(path): dict(record)}, indent=1))
        temporary.replace(_kept_file())
    except OSError:  # a folder that cannot be written costs time, no more
        with contextlib.suppress(OSError):
            temporary.unlink()


def _annotations_hash(path: Path) -> str:
    try:
        return file_hash(path)
    except OSError as error:
        what = "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
        raise PCDError(f"annotation file {path} {what}; set data.* to where your data lies") from None


def _images_hash(folder: Path) -> str:
    return _listing(folder, scan_images).fingerprint()


def _pool_hash(pool: Path) -> str:
    return _listing(pool, scan_pool).fingerprint()


@dataclass(frozen=True, slots=True)
class _Seen:
    listing: Listing
    at: float
    """Unix seconds, before the look."""
    folders: dict[Path, float]
    """Folder to the time at which its entries last changed, Unix seconds."""

    def stands(self) -> bool:
        """Nothing came or went since. A file overwritten in its place does not show, so no look serves for long."""
        is_fresh = time.time() - self.at < _A_LOOK_SERVES
        return is_fresh and all(
            changed < self.at - _SETTLED_SECONDS and _changed_at(folder) == changed
            for folder, changed in self.folders.items()
        )


_A_LOOK_SERVES: Final = 60.0
"""Seconds: from the plan that a command checks to the plan of the flow that it starts."""

_seen: dict[tuple[Path, Callable[[Path], Listing]], _Seen] = {}


def _listing(path: Path, scan: Callable[[Path], Listing]) -> Listing:
    """From an earlier look in this process, where that still stands."""
    seen = _seen.get((path, scan))
    if seen is None or not seen.stands():
        at, listing = time.time(), scan(path)
        inside = {listing.folder / name[: name.rfind("/") + 1] for name in listing.names}
        seen = _Seen(listing, at, {folder: _changed_at(folder) for folder in (listing.folder, *inside)})
        _seen[path, scan] = seen
    return seen.listing


def _changed_at(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except OSError:
        return -1.0
