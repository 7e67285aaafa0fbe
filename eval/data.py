"""data.json: what the data stage leaves for the stages behind it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pcd.errors import PCDError
from pcd.image_folder import pool_folder
from pcd.stage import write_json

__all__ = ["DataSet", "Score", "Split", "read_data_set", "write_data_set"]

Score = Literal["coco", "voc", "cityscapes"]
"""Whose rules an evaluation on the set goes by."""


@dataclass(frozen=True, slots=True)
class Split:
    images: Path
    """Folder that the annotations' file names are relative to."""
    annotations: Path
    """COCO JSON; of a set of classes, a JSON list of its images' names, each below the folder of its class."""


@dataclass(frozen=True, slots=True)
class DataSet:
    name: str
    pool: Path | None
    """Unlabelled images, of the benchmark's `data`; one of `sets` has none."""
    train: Split
    val: Split
    categories: tuple[str, ...]
    """In the order of their ids; of a set of classes, label 0 first."""
    counts: dict[str, int]
    """Images of pool, train and val, annotations of train and val."""
    fingerprint: str
    """SHA-256 over the contents of the labelled annotations and the listing of all images."""
    score: Score | None = "coco"
    """None: a set of classes, which no detector is evaluated on."""
    folder: Path | None = None
    """Where the set lies in its own layout (VOCdevkit, Cityscapes), for its official evaluation."""

    def labelled(self, split: Literal["train", "val"]) -> list[tuple[Path, int]]:
        """Image and label of each picture of a set of classes, class by class.

        Raises:
            PCDError: the set is of another kind.
        """
        if self.score is not None:
            raise PCDError(f"the set {self.name} has objects and no classes of images; name a set of kind classes")
        labels = {name: label for label, name in enumerate(self.categories)}
        place: Split = self.train if split == "train" else self.val
        names: list[str] = json.loads(place.annotations.read_text())
        return [(place.images / name, labels[name.partition("/")[0]]) for name in names]


_SPLITS = ("train", "val")


def write_data_set(folder: Path, data: DataSet) -> None:
    """Write data.json; places inside `folder` are written relative to it, so that it can be moved."""

    def place(path: Path) -> str:
        return str(path.relative_to(folder) if path.is_relative_to(folder) else path)

    splits = {
        name: {"images": place(split.images), "annotations": place(split.annotations)}
        for name, split in zip(_SPLITS, (data.train, data.val), strict=True)
    }
    record: dict[str, Any] = {"name": data.name, **({"pool": place(data.pool)} if data.pool else {}), **splits}
    record |= {"categories": data.categories, "counts": data.counts, "fingerprint": data.fingerprint}
    record["score"] = data.score
    record |= {"folder": place(data.folder)} if data.folder else {}
    write_json(folder / "data.json", record)


def read_data_set(folder: Path, places: Mapping[str, str] | None = None) -> DataSet:
    """What the data stage left in `folder`.

    Args:
        places: where pool, train_images, train_annotations, val_images, val_annotations and the set's own folder lie
            on this machine, in place of where they lay on the one that looked at them.

    Raises:
        PCDError: it has a pool and no labelled images.
    """
    record, places = json.loads((folder / "data.json").read_text()), places or {}
    if "train" not in record:
        raise PCDError("the benchmark's data are a pool alone; name one of its labelled sets in the protocol's `set`")
    splits = {
        name: Split(
            folder / places.get(f"{name}_images", record[name]["images"]),
            folder / places.get(f"{name}_annotations", record[name]["annotations"]),
        )
        for name in _SPLITS
    }
    return DataSet(
        name=record["name"],
        pool=pool_folder(folder, places) if "pool" in record else None,
        train=splits["train"],
        val=splits["val"],
        categories=tuple(record["categories"]),
        counts=record["counts"],
        fingerprint=record["fingerprint"],
        score=record["score"],
        folder=folder / places.get("folder", record["folder"]) if "folder" in record else None,
    )
