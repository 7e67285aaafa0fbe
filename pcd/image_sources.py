"""Images by number, from a folder or from tar shards, and the order in which an epoch meets them; without torch."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from pcd.folder_index import FolderIndex
from pcd.image_folder import Listing, pool_folder, scan_pool
from pcd.random_streams import order_stream
from pcd.shards import ShardIndex, index_shards

__all__ = [
    "POOL_INDEX", "FolderImages", "ImageSource", "ShardImages",
    "open_images", "open_listing", "open_pool", "save_index", "shuffled",
]  # fmt: skip

POOL_INDEX: Final = "pool_index.npz"
"""What a data stage leaves beside data.json for a pool of the user's own: where every image lies."""

SHARDS_TOGETHER: Final = 32
"""Images are shuffled within so many shards: tens of thousands, and few enough files to be read nearly in turn."""


class ImageSource(Protocol):
    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """For people."""

    def read(self, index: int) -> bytearray:
        """The bytes of one image's file. Raises OSError."""

    def epoch_order(self, epoch: int, seed: int) -> NDArray[np.int64]:
        """Every index once; depends on nothing but the arguments."""


def open_pool(data: Path, places: Mapping[str, str] | None = None) -> "FolderImages | ShardImages":
    """The pool of a data stage's folder; `places` as in `pool_folder`.

    Raises PCDError if the pool is no longer what the data stage saw.
    """
    pool, saved = pool_folder(data, places), data / POOL_INDEX
    if not saved.exists():
        return open_images(pool)
    folder = pool if pool.is_dir() else pool.parent
    with np.load(saved, allow_pickle=False) as arrays:
        is_of_shards = "shards" in arrays.files
    if is_of_shards:
        return ShardImages(ShardIndex.load(saved, folder))
    return FolderImages(FolderIndex.load(saved, folder))


def open_images(pool: Path, processes: int = 1) -> "FolderImages | ShardImages":
    """A folder of images or of shards, or a pattern of shards (see `scan_pool`), which `processes` read through once.

    Raises PCDError if there is none or a shard is damaged.
    """
    return open_listing(scan_pool(pool), processes)


def open_listing(listing: Listing, processes: int = 1) -> "FolderImages | ShardImages":
    if listing.is_of_images:
        return FolderImages(FolderIndex.of(listing))
    return ShardImages(index_shards(listing.paths, processes))


def save_index(source: "FolderImages | ShardImages", listing: Listing, data: Path) -> None:
    """Leave POOL_INDEX in a data stage's folder."""
    if isinstance(source, ShardImages):
        source.index.save(data / POOL_INDEX, listing.folder)
    else:
        source.index.save(data / POOL_INDEX)


def shuffled(images: int, epoch: int, seed: int) -> NDArray[np.int64]:
    """A permutation of all images."""
    return order_stream(seed, epoch).permutation(images)


class FolderImages:
    """Files of their own."""

    def __init__(self, index: FolderIndex) -> None:
        self.index = index

    def __len__(self) -> int:
        return len(self.index.names)

    def name(self, index: int) -> str:
        return str(self.index.path_of(index))

    def read(self, index: int) -> bytearray:
        return bytearray(self.index.path_of(index).read_bytes())

    def epoch_order(self, epoch: int, seed: int) -> NDArray[np.int64]:
        return shuffled(len(self), epoch, seed)


class ShardImages:
    """Images in tar files, read where the index says they lie, so that no shard is read from its beginning."""

    def __init__(self, index: ShardIndex) -> None:
        self.index = index
        self._files: dict[int, int] = {}  # shard to file descriptor

    def __len__(self) -> int:
        return len(self.index.offsets)

    def name(self, index: int) -> str:
        shard = self.index.shards[self.index.shard_of(index)]
        return f"{shard}:{os.fsdecode(bytes(self.index.names[index]))}"

    def read(self, index: int) -> bytearray:
        data = bytearray(int(self.index.sizes[index]))
        got = os.preadv(self._open(self.index.shard_of(index)), [data], int(self.index.offsets[index]))
        if got != len(data):
            raise OSError(f"the shard ends {len(data) - got} bytes before the image does")
        return data

    def epoch_order(self, epoch: int, seed: int) -> NDArray[np.int64]:
        """Shards in random order; of every 32 in turn, all images in random order."""
        random, first = order_stream(seed, epoch), self.index.first
        shards = random.permutation(len(self.index.shards))
        groups = (shards[start : start + SHARDS_TOGETHER] for start in range(0, len(shards), SHARDS_TOGETHER))
        return np.concatenate(
            [random.permutation(np.concatenate([np.arange(first[s], first[s + 1]) for s in group])) for group in groups]
        )

    def _open(self, shard: int) -> int:
        if shard not in self._files:
            if len(self._files) >= 2 * SHARDS_TOGETHER:
                os.close(self._files.pop(next(iter(self._files))))  # the one opened first, of a group gone by
            self._files[shard] = os.open(self.index.shards[shard], os.O_RDONLY)
        return self._files[shard]

    def __getstate__(self) -> ShardIndex:
        return self.index

    def __setstate__(self, index: ShardIndex) -> None:
        self.__init__(index)  # type: ignore[misc]

    def __del__(self) -> None:
        for file in self._files.values():
            os.close(file)
