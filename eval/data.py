"""data.json: what the data stage leaves for the stages behind it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pcd.image_folder import pool_folder
from pcd.stage import write_json

__all__ = ["DataSet", "Split", "read_data_set", "write_data_set"]


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


def read_data_set(folder: Path, places: Mapping[str, str] | None = None) -> DataSet:
    """What the data stage left in `folder`.

    Args:
        places: where pool, train_images, train_annotations, val_images and val_annotations lie on this machine, in
            place of where they lay on the one that looked at them.
    """
    record, places = json.loads((folder / "data.json").read_text()), places or {}
    splits = {
        name: Split(
            folder / places.get(f"{name}_images", record[name]["images"]),
            folder / places.get(f"{name}_annotations", record[name]["annotations"]),
        )
        for name in ("train", "val")
    }
    return DataSet(
        name=record["name"],
        pool=pool_folder(folder, places),
        train=splits["train"],
        val=splits["val"],
        categories=tuple(record["categories"]),
        counts=record["counts"],
        fingerprint=record["fingerprint"],
    )
