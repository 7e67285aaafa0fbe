"""Two views of unlabelled images, and the order in which training meets them."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import Dataset

from pcd.errors import PCDError
from pcd.views import TwoViews

__all__ = ["EpochBatches", "TwoViewImages", "iterate", "read_rgb"]

_Batch = TypeVar("_Batch")


class TwoViewImages(Dataset[tuple[Tensor, Tensor]]):
    """Indexed by (epoch, image): two views whose randomness depends on seed, epoch and image alone.

    So the views are the same whatever the number of workers and wherever a run was interrupted.
    """

    def __init__(self, paths: list[Path], views: TwoViews, seed: int) -> None:
        self.paths = paths
        self.views = views
        self.seed = seed

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, place: tuple[int, int]) -> tuple[Tensor, Tensor]:
        epoch, index = place
        image = read_rgb(self.paths[index])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_mix(self.seed, epoch, index))
            return self.views(image)


def iterate(loader: Iterable[_Batch]) -> Iterator[_Batch]:
    """The loader's batches; an error of a worker without the traceback that torch wraps around it."""
    try:
        yield from loader
    except PCDError as error:
        last = str(error).strip().splitlines()[-1]
        raise PCDError(last.removeprefix(f"{PCDError.__module__}.PCDError: ")) from None


def read_rgb(path: Path) -> Image.Image:
    """Raises PCDError if the file is missing or damaged."""
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise PCDError(f"cannot read image {path} ({error}); remove it or replace it") from None


def _mix(*numbers: int) -> int:
    """One 63-bit seed out of several numbers (FNV-1a over them), equal in every process."""
    mixed = 0xCBF29CE484222325
    for number in numbers:
        mixed = ((mixed ^ number) * 0x100000001B3) & 0x7FFFFFFFFFFFFFFF
    return mixed


class EpochBatches:
    """This rank's batches of (epoch, image), from step `first` to `total`; an epoch's incomplete last one is left out.

    Every epoch is one seeded permutation, cut into global batches; rank r of n takes every n-th image of a batch.
    """

    def __init__(
        self, images: int, global_batch: int, seed: int, first: int, total: int, rank: int = 0, world: int = 1
    ) -> None:
        self.images, self.global_batch, self.seed = images, global_batch, seed
        self.first, self.total, self.rank, self.world = first, total, rank, world

    @property
    def steps_per_epoch(self) -> int:
        return self.images // self.global_batch

    def __len__(self) -> int:
        return self.total - self.first

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for step in range(self.first, self.total):
            epoch, place = divmod(step, self.steps_per_epoch)
            if place == 0 or step == self.first:
                generator = torch.Generator().manual_seed(_mix(self.seed, epoch))
                order = torch.randperm(self.images, generator=generator).tolist()
            batch = order[place * self.global_batch : (place + 1) * self.global_batch]
            yield [(epoch, index) for index in batch[self.rank :: self.world]]
