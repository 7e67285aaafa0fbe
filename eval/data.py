"""data.json: what the data stage leaves for the stages behind it."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from eval.settings import CocoData, ShapesData
from pcd.errors import PCDError
from pcd.image_folder import list_images, list_pool
from pcd.stage import write_json

__all__ = [
    "MISSING", "DataSet", "InputFiles", "Split",
    "file_hash", "input_files", "pool_hash", "read_data_set", "write_data_set",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Split:
    images: Path
    """Folder that the annotations' file names are relative to."""
    annotations: Path
    """COCO JSON."""


@dataclass(frozen=True, slots=True)
class DataSet:
    name: str
    pool: Path
    train: Split
    val: Split
    categories: tuple[str, ...]
    counts: dict[str, int]
    """Images of pool, train and val, annotations of train and val."""
    fingerprint: str
    """SHA-256 over the contents of the labelled annotations and the listing of all images."""


def write_data_set(folder: Path, data: DataSet) -> None:
    """Write data.json; places inside `folder` are written relative to it, so that it can be moved."""

    def place(path: Path) -> str:
        return str(path.relative_to(folder) if path.is_relative_to(folder) else path)

    splits = {
        name: {"images": place(split.images), "annotations": place(split.annotations)}
        for name, split in (("train", data.train), ("val", data.val))
    }
    record: dict[str, Any] = {"name": data.name, "pool": place(data.pool), **splits}
    record |= {"categories": data.categories, "counts": data.counts, "fingerprint": data.fingerprint}
    write_json(folder / "data.json", record)


def read_data_set(folder: Path) -> DataSet:
    record = json.loads((folder / "data.json").read_text())
    splits = {
        name: Split(folder / record[name]["images"], folder / record[name]["annotations"]) for name in ("train", "val")
    }
    return DataSet(
        name=record["name"],
        pool=folder / record["pool"],
        train=splits["train"],
        val=splits["val"],
        categories=tuple(record["categories"]),
        counts=record["counts"],
        fingerprint=record["fingerprint"],
    )


MISSING: Final = "missing"
"""Stands for the hash of what is not there."""


@dataclass(frozen=True, slots=True)
class InputFiles:
    """What a stage reads from outside the store."""

    hashes: dict[str, str]
    """Name of each file or folder to a hash of its content, or MISSING."""
    missing: tuple[str, ...] = ()
    """A line for each that is not there: what, where, what to do."""


def input_files(settings: ShapesData | CocoData) -> InputFiles:
    """What a data stage reads from outside, by content: annotation files by SHA-256, image folders by their listing."""
    if isinstance(settings, ShapesData):
        return InputFiles({})
    read: dict[str, tuple[Callable[[Path], str], Path]] = {
        "train": (_annotations_hash, settings.train_annotations),
        "val": (_annotations_hash, settings.val_annotations),
        "pool": (pool_hash, settings.pool),
        "train_images": (listing_hash, settings.train_images),
        "val_images": (listing_hash, settings.val_images),
    }
    hashes, missing = {}, []
    for name, (hash_of, path) in read.items():
        try:
            hashes[name] = hash_of(path)
        except PCDError as error:
            hashes[name] = MISSING
            missing.append(str(error))
    return InputFiles(hashes, tuple(missing))


def file_hash(path: Path) -> str:
    """SHA-256. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _annotations_hash(path: Path) -> str:
    try:
        return file_hash(path)
    except OSError:
        raise PCDError(f"annotation file {path} does not exist; set data.* to where your data lies") from None


def listing_hash(folder: Path) -> str:
    """SHA-256 over the relative path and size of every image; bytes are not read, since ImageNet has 150 GB."""
    return _hash_of_sizes(folder, list_images(folder))


def pool_hash(pool: Path) -> str:
    """The same for a pool, which may be made of shards; a pattern of shards counts as the folder they lie in."""
    return _hash_of_sizes(pool if pool.is_dir() else pool.parent, list_pool(pool))


def _hash_of_sizes(folder: Path, files: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        try:
            size = path.stat().st_size
        except OSError as error:
            raise PCDError(f"cannot read {path} ({error.strerror}); mend or remove it") from None
        digest.update(f"{path.relative_to(folder)}\0{size}\n".encode())
    return digest.hexdigest()
