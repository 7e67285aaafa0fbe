"""A folder's images as the data stage listed them, so that no rank lists a million files again; without torch."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pcd.errors import PCDError
from pcd.image_folder import Listing

__all__ = ["FolderIndex"]

_LOOKED_AT: Final = 1000
"""Images whose presence and length say whether the index still fits: looking at all would be listing them again."""


@dataclass(frozen=True, slots=True)
class FolderIndex:
    """N images below a folder, in the listing's order."""

    folder: Path
    names: NDArray[np.bytes_]
    """(N): paths relative to the folder. One array, not a million objects, which every worker of a loader would come to
    copy by counting references to them."""
    sizes: NDArray[np.int64]
    """(N): lengths, bytes."""

    @classmethod
    def of(cls, listing: Listing) -> "FolderIndex":
        names = np.array([os.fsencode(name) for name in listing.names])
        return cls(listing.folder, names, np.array(listing.sizes, dtype=np.int64))

    def path_of(self, image: int) -> Path:
        return self.folder / os.fsdecode(bytes(self.names[image]))

    def save(self, path: Path) -> None:
        """The folder itself is not written: it may lie elsewhere on the machine that reads this."""
        with path.open("wb") as file:
            np.savez(file, names=self.names, sizes=self.sizes)

    @classmethod
    def load(cls, path: Path, folder: Path) -> "FolderIndex":
        """Raises PCDError if one of a thousand images, spread evenly, is gone or no longer as long as it was."""
        with np.load(path, allow_pickle=False) as saved:
            index = cls(folder, saved["names"], saved["sizes"])
        for image in np.linspace(0, len(index.names) - 1, min(_LOOKED_AT, len(index.names)), dtype=np.int64):
            place = index.path_of(int(image))
            if not place.exists() or place.stat().st_size != index.sizes[image]:
                raise PCDError(f"image {place} is gone or was changed since the data stage listed it; restore it")
        return index
