"""Images by number, from a folder or from tar shards, and the order in which an epoch meets them; without torch."""

import os
from pathlib import Path
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from pcd.image_folder import is_image, list_pool, pool_folder
from pcd.random_streams import order_stream
from pcd.shards import ShardIndex, index_shards

__all__ = ["POOL_INDEX", "FolderImages", "ImageSource", "ShardImages", "open_images", "open_pool", "shuffled"]

POOL_INDEX: Final = "pool_index.npz"
"""What a data stage leaves beside data.json where the pool is made of shards: where every image lies in them."""

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


def open_pool(data: Path) -> ImageSource:
    """The pool of a data stage's folder."""
    pool, index = pool_folder(data), data / POOL_INDEX
    return ShardImages(ShardIndex.load(index)) if index.exists() else open_images(pool)


def open_images(pool: Path, processes: int = 1) -> ImageSource:
    """A folder of images or of shards, or a pattern of shards (see `list_pool`), which `processes` read through once.

    Raises PCDError if there is none or a shard is damaged.
    """
    files = list_pool(pool)
    if is_image(files[0].name):
        return FolderImages(files)
    return ShardImages(index_shards(files, processes))


def shuffled(images: int, epoch: int, seed: int) -> NDArray[np.int64]:
    """A permutation of all images."""
    return order_stream(seed, epoch).permutation(images)


class FolderImages:
    """Files of their own."""

    def __init__(self, paths: list[Path]) -> None:
        # One array, not a million objects, which every worker would come to copy by counting references to them.
        self._paths = np.array([os.fsencode(path) for path in paths])

    def __len__(self) -> int:
        return len(self._paths)

    def name(self, index: int) -> str:
        return os.fsdecode(bytes(self._paths[index]))

    def read(self, index: int) -> bytearray:
        return bytearray(Path(self.name(index)).read_bytes())

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
