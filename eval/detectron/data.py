"""A data set's labelled splits as Detectron2 reads them."""

import copy
import itertools
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import DatasetCatalog, DatasetMapper, build_detection_test_loader, get_detection_dataset_dicts
from detectron2.data.datasets import register_coco_instances
from detectron2.data.samplers import TrainingSampler
from torch.utils.data import DataLoader, Dataset, SequentialSampler

from eval.data import Split
from eval.datasets.pictures import picture_size
from pcd.distributed import rank, world_size
from pcd.images import iterate

__all__ = ["evaluation_loader", "register_split", "training_loader"]


def register_split(split: Split) -> str:
    """Register `split` in Detectron2's catalogue under a name of its own; reading it once fills its metadata."""
    name = f"{split.annotations.stem}-{uuid.uuid4().hex[:8]}"
    register_coco_instances(name, {}, str(split.annotations), str(split.images))
    DatasetCatalog.get(name)
    return name


class _Mapper(DatasetMapper):  # type: ignore[misc]
    """Detectron2's, which names the file where it cannot be read."""

    def __call__(self, record: dict[str, Any]) -> Any:
        try:
            return super().__call__(record)
        except Exception:
            picture_size(Path(record["file_name"]))  # raises PCDError if the file is why
            raise


class _AugmentedImages(Dataset[Any]):
    """Indexed by (position in the order, image): augmentation depends on seed and position alone.

    So it is the same whatever the number of workers and wherever a run was interrupted, which Detectron2's own loader
    does not promise.
    """

    def __init__(self, records: list[Any], mapper: DatasetMapper, seed: int) -> None:
        self.records, self.mapper, self.seed = records, mapper, seed

    def __getitem__(self, place: tuple[int, int]) -> Any:
        position, index = place
        # Detectron2's augmentations draw from numpy's global state.
        np.random.seed(np.random.SeedSequence([self.seed, position]).generate_state(1)[0])  # noqa: NPY002
        return self.mapper(copy.deepcopy(self.records[index]))


class _Batches:
    """Detectron2's endless shuffled order, this rank's share of it, in batches of one orientation from step `first` on.

    A batch is full of images wider than high, or of the others, and comes when it is full: Detectron2's
    ASPECT_RATIO_GROUPING, which saves padding. What came before `first` is gone through without an image being read,
    so that what comes next depends on seed and step alone (and, as which images share a batch does, on the ranks).
    """

    def __init__(self, are_wide: Sequence[bool], per_rank: int, seed: int, first: int) -> None:
        self.order = TrainingSampler(len(are_wide), shuffle=True, seed=seed)
        self.are_wide, self.per_rank, self.first = are_wide, per_rank, first

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return itertools.islice(self._from_the_start(), self.first, None)

    def _from_the_start(self) -> Iterator[list[tuple[int, int]]]:
        waiting: tuple[list[tuple[int, int]], ...] = ([], [])
        position, ranks = rank(), world_size()
        for index in self.order:
            batch = waiting[self.are_wide[index]]
            batch.append((position, index))
            position += ranks
            if len(batch) == self.per_rank:
                yield batch.copy()
                batch.clear()


def training_loader(cfg: Any, name: str, workers: int, seed: int, first: int) -> Iterator[Any]:
    """Endless batches of this rank's share, from step `first` on; images without objects are left out.

    They raise PCDError at an image that cannot be read.
    """
    records = get_detection_dataset_dicts(name, filter_empty=True)
    are_wide = [record["width"] > record["height"] for record in records]
    loader: DataLoader[Any] = DataLoader(
        _AugmentedImages(records, _Mapper(cfg, is_train=True), seed),
        batch_sampler=_Batches(are_wide, cfg.SOLVER.IMS_PER_BATCH // world_size(), seed, first),
        num_workers=workers,
        collate_fn=list,
    )
    return iterate(loader)


def evaluation_loader(cfg: Any, name: str, workers: int) -> Any:
    """The whole split in its order, also where several ranks run: only the first one evaluates."""
    records = get_detection_dataset_dicts(name, filter_empty=False)
    return build_detection_test_loader(
        records, mapper=_Mapper(cfg, is_train=False), sampler=SequentialSampler(records), num_workers=workers
    )
