"""Where every image lies in tar shards (WebDataset's format), so that it can be read alone; without torch.

WebDataset itself reads shards as streams: its order then depends on workers and ranks, and a run that resumes reads
everything before its step again. A tar file's headers say where each member starts; they are read once, and kept.
"""

import os
import tarfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pcd.errors import PCDError
from pcd.image_folder import is_image

__all__ = ["ShardIndex", "index_shards"]


@dataclass(frozen=True, slots=True)
class ShardIndex:
    """N images in the order of shards and of their places in them; any member with an image's suffix is one."""

    shards: list[Path]
    lengths: NDArray[np.int64]
    """Bytes of each shard, by which a changed one is noticed."""
    first: NDArray[np.int64]
    """(shards + 1): number of each shard's first image; the last is N."""
    offsets: NDArray[np.int64]
    """(N): first byte of the image in its shard."""
    sizes: NDArray[np.int64]
    """(N): its length, bytes."""
    names: NDArray[np.bytes_]
    """(N): name of the member."""

    def shard_of(self, image: int) -> int:
        return int(np.searchsorted(self.first, image, side="right")) - 1

    def save(self, path: Path, folder: Path) -> None:
        """The shards' folder itself is not written: it may lie elsewhere on the machine that reads this."""
        with path.open("wb") as file:
            np.savez(
                file,
                shards=np.array([os.fsencode(shard.relative_to(folder)) for shard in self.shards]),
                lengths=self.lengths,
                first=self.first,
                offsets=self.offsets,
                sizes=self.sizes,
                names=self.names,
            )

    @classmethod
    def load(cls, path: Path, folder: Path) -> "ShardIndex":
        """Raises PCDError if a shard is gone or no longer as long as it was."""
        with np.load(path, allow_pickle=False) as saved:
            arrays = dict(saved)
        shards = [folder / os.fsdecode(bytes(name)) for name in arrays.pop("shards")]
        for shard, length in zip(shards, arrays["lengths"], strict=True):
            if not shard.exists() or shard.stat().st_size != length:
                raise PCDError(f"shard {shard} is gone or was changed since the data stage indexed it; restore it")
        return cls(shards, **arrays)


def index_shards(shards: list[Path], processes: int = 1) -> ShardIndex:
    """Read the headers of all shards. Raises PCDError if one is damaged or compressed, or none holds an image."""
    if processes > 1 and len(shards) > 1:
        with ProcessPoolExecutor(min(processes, len(shards))) as workers:
            members = list(workers.map(_image_members, shards))
    else:
        members = [_image_members(shard) for shard in shards]
    offsets, sizes, names = (np.concatenate(arrays) for arrays in zip(*members, strict=True))
    if len(names) == 0:
        raise PCDError(f"no images in the shards ({shards[0]} and others); their members need suffixes such as .jpg")
    first = np.cumsum([0, *(len(found[0]) for found in members)])
    lengths = np.array([shard.stat().st_size for shard in shards])
    return ShardIndex(shards, lengths, first, offsets, sizes, names)


def _image_members(shard: Path) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bytes_]]:
    """Offsets, sizes and names of one shard's images."""
    try:
        with tarfile.open(shard, "r:") as tar:
            found = [(m.offset_data, m.size, os.fsencode(m.name)) for m in tar if m.isfile() and is_image(m.name)]
    except tarfile.TarError as error:
        raise PCDError(f"shard {shard} is no whole, uncompressed tar file ({error}); fetch or write it again") from None
    offsets, sizes, names = zip(*found, strict=True) if found else ((), (), ())
    return np.array(offsets, dtype=np.int64), np.array(sizes, dtype=np.int64), np.array(names, dtype=np.bytes_)
