"""What stages read from outside the store, by content; each file and folder is looked at once while it stays as it is.

Annotation files and a teacher's own file are hashed once on a machine (their hashes are kept in PCD_HOME/hashes.json by
path, size and time of change; of the many small files of VOC and Cityscapes, one for all of a split); folders of images
are listed once in a process.
"""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from eval.datasets.layouts import annotation_files, image_folders, voc_images
from eval.settings import (
    CityscapesSet,
    CocoData,
    CocoSet,
    DataSettings,
    LabelledSet,
    PoolData,
    ShapesData,
    VocSet,
)  # fmt: skip
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


def data_files(settings: DataSettings | LabelledSet) -> InputFiles:
    """Of a data stage: annotation files by SHA-256, image folders by their listing."""
    hashes: dict[str, str] = {}
    missing: list[str] = []
    for name, hash_of in _parts(settings).items():
        try:
            hashes[name] = hash_of()
        except PCDError as error:
            hashes[name] = MISSING
            if str(error) not in missing:  # one folder may be missed by several
                missing.append(str(error))
    return InputFiles(hashes, tuple(missing))


def _parts(settings: DataSettings | LabelledSet) -> dict[str, Callable[[], str]]:
    """Name of each file or folder that the stage reads to what hashes it."""
    if isinstance(settings, ShapesData):
        return {}
    parts: dict[str, Callable[[], str]] = {}
    if isinstance(settings, CocoSet):
        parts["train"] = partial(_annotations_hash, settings.train_annotations)
        parts["val"] = partial(_annotations_hash, settings.val_annotations)
    if isinstance(settings, VocSet | CityscapesSet):
        parts |= {split: partial(_split_hash, settings, split) for split in ("train", "val")}
    if isinstance(settings, CocoData | PoolData):
        parts["pool"] = partial(_pool_hash, settings.pool)
    if isinstance(settings, VocSet):  # its lists name images of any year's folder
        parts["images"] = partial(_images_hash, settings.folder)
    elif not isinstance(settings, PoolData):
        parts |= {name: partial(_images_hash, folder) for name, folder in image_folders(settings).items()}
    return parts


def _split_hash(settings: VocSet | CityscapesSet, split: str) -> str:
    """SHA-256 over the names and contents of a split's annotation files, kept by their sizes and times of change."""
    files, seen, newest = annotation_files(settings)[split], hashlib.sha256(), 0.0
    try:
        for path in files:
            status = path.stat()
            newest = max(newest, status.st_mtime)
            seen.update(b"%s\0%d %d\n" % (os.fsencode(path), status.st_size, status.st_mtime_ns))
        kept, name = _read_kept(), f"{settings.folder} {settings.kind} {split}"
        identity = {"looks": seen.hexdigest()}
        if isinstance(kept.get(name), dict) and identity.items() <= kept[name].items() and "sha256" in kept[name]:
            return str(kept[name]["sha256"])
        content = hashlib.sha256()
        for path in files:
            content.update(os.fsencode(path.relative_to(settings.folder)) + b"\0")
            content.update(hashlib.sha256(path.read_bytes()).digest())
    except OSError as error:
        raise PCDError(
            f"annotation file {error.filename} cannot be read ({error.strerror}); unpack its archive again"
        ) from None
    if time.time() - newest > _SETTLED_SECONDS:
        _keep(name, identity | {"sha256": content.hexdigest()})
    return content.hexdigest()


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


def image_counts(settings: CocoData | PoolData | LabelledSet) -> dict[str, int | None]:
    """Images of pool, train and val where they can be counted without being read; None where they cannot.

    What the set does not have counts 0.
    """
    counts: dict[str, int | None] = {"pool": 0, "train": 0, "val": 0}
    folders = {} if isinstance(settings, PoolData) else image_folders(settings)
    read = {name.removesuffix("_images"): path for name, path in folders.items()}
    read |= {"pool": settings.pool} if isinstance(settings, CocoData | PoolData) else {}
    for name, path in read.items():
        try:
            if isinstance(settings, VocSet):
                counts[name] = _voc_count(settings, name)
                continue
            listing = _listing(path, scan_pool if name == "pool" else scan_images)
        except PCDError:
            counts[name] = None
            continue
        counts[name] = len(listing) if listing.is_of_images else sum(listing.sizes) // _SHARD_BYTES_PER_IMAGE
    return counts


def _voc_count(settings: VocSet, split: str) -> int:
    lists = settings.train if split == "train" else (settings.val,)
    return sum(len(voc_images(settings.folder, name)) for name in lists)


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
        _keep(str(path), identity | {"sha256": sha256})
    return sha256


def _kept_file() -> Path:
    return home() / "hashes.json"


def _read_kept() -> dict[str, Any]:
    try:
        kept = json.loads(_kept_file().read_text())
    except (OSError, ValueError):
        return {}
    return kept if isinstance(kept, dict) else {}


def _keep(name: str, record: Mapping[str, Any]) -> None:
    """Two processes may do so at once: the later one's file stands, and what the other kept is hashed once more."""
    temporary = _kept_file().with_name(f".hashes.json.{os.getpid()}")
    try:
        temporary.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(_read_kept() | {name: dict(record)}, indent=1))
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
    if not folder.is_dir():
        raise PCDError(f"image folder {folder} does not exist; set data.*, or the set's own places, to where it lies")
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
