"""Pack a folder of images into tar shards in WebDataset's format: `python -m pcd.write_shards FOLDER OUT`.

The images are written in random order, since training shuffles within a few shards at a time: in the order of a folder
such as ImageNet's, whose subfolders are classes, a batch would hold few of them.
"""

import sys
from pathlib import Path
from typing import Final

from webdataset import ShardWriter

from pcd.errors import PCDError
from pcd.image_folder import list_images
from pcd.image_sources import shuffled

__all__ = ["write_shards"]

SHARD_BYTES: Final = 256_000_000
"""Large enough for a file system or object store to read in one go, small enough to shuffle many of."""


def write_shards(folder: Path, out: Path, shard_bytes: int = SHARD_BYTES) -> int:
    """Write `out/000000.tar` and so on, the bytes of every image as they are; returns the number of images.

    A sample's key is its number and its path, without suffix and with each dot and slash as an underscore.

    Raises:
        PCDError: `folder` has no images, or `out` has shards already.
    """
    paths = list_images(folder)
    out.mkdir(parents=True, exist_ok=True)
    if any(out.glob("*.tar")):
        raise PCDError(f"{out} has shards already; choose an empty folder")
    with ShardWriter(f"{out}/%06d.tar", maxcount=len(paths), maxsize=shard_bytes, verbose=0, mtime=0) as shards:
        for number, index in enumerate(shuffled(len(paths), epoch=0, seed=0)):
            path = paths[index]
            stem = str(path.relative_to(folder).with_suffix("")).replace("/", "_").replace(".", "_")
            shards.write({"__key__": f"{number:08}_{stem}", path.suffix[1:].lower(): path.read_bytes()})
    return len(paths)


def _main() -> int:
    if len(sys.argv) != 3:
        print("usage: python -m pcd.write_shards FOLDER OUT", file=sys.stderr)
        return 2
    try:
        print(f"{write_shards(Path(sys.argv[1]), Path(sys.argv[2]))} images written to {sys.argv[2]}")
    except PCDError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(_main())
