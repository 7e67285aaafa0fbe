"""A data set's labelled splits as Detectron2 loads them."""

import itertools
import uuid
from collections.abc import Iterator
from typing import Any

from detectron2.data import (
    DatasetCatalog,
    build_detection_test_loader,
    build_detection_train_loader,
)
from detectron2.data.datasets import register_coco_instances
from detectron2.data.samplers import TrainingSampler
from torch.utils.data import Sampler

from eval.data import Split

__all__ = ["evaluation_loader", "register_split", "training_loader"]


def register_split(split: Split) -> str:
    """Register `split` in Detectron2's catalogue under a name of its own; reading it once fills its metadata."""
    name = f"{split.annotations.stem}-{uuid.uuid4().hex[:8]}"
    register_coco_instances(name, {}, str(split.annotations), str(split.images))
    DatasetCatalog.get(name)
    return name


class _ResumedSampler(Sampler[int]):
    """Detectron2's endless shuffled order, without the images that earlier steps took."""

    def __init__(self, images: int, seed: int, skip: int) -> None:
        self._order = TrainingSampler(images, shuffle=True, seed=seed)
        self._skip = skip

    def __iter__(self) -> Iterator[int]:
        return itertools.islice(iter(self._order), self._skip, None)


def training_loader(cfg: Any, name: str, workers: int, seed: int, skip: int) -> Any:
    """Endless batches of this rank's share; `skip` counts the images that this rank has had already."""
    cfg = cfg.clone()
    cfg.DATASETS.TRAIN = (name,)
    cfg.DATALOADER.NUM_WORKERS = workers
    images = sum(1 for record in DatasetCatalog.get(name) if _has_objects(record))
    return build_detection_train_loader(cfg, sampler=_ResumedSampler(images, seed, skip))


def _has_objects(record: Any) -> bool:
    return any(not annotation.get("iscrowd", 0) for annotation in record["annotations"])


def evaluation_loader(cfg: Any, name: str, workers: int) -> Any:
    cfg = cfg.clone()
    cfg.DATALOADER.NUM_WORKERS = workers
    return build_detection_test_loader(cfg, name)
