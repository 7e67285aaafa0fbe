"""Do image files decode, how large are they, and which hold the same bytes?"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Final

from PIL import Image, UnidentifiedImageError

from pcd.errors import PCDError

__all__ = ["Tick", "picture_size", "picture_sizes", "shared_pictures"]

Tick = Callable[[str, int, int], None]
"""Told (phase, done, total) often; may raise to stop."""

_ORIENTATION: Final = 0x0112
"""EXIF's tag; 5 to 8 swap width and height."""
_BLOCK: Final = 100  # images that are decoded before progress is told


def picture_size(path: Path) -> tuple[int, int]:
    """(width, height) as Detectron2 will see it, turned as its EXIF record says; all of the file is decoded.

    Raises:
        PCDError: it is no image, or damaged, or cannot be read.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            # An eighth of a JPEG's pixels takes half the time, and still every byte that they are made of.
            image.draft("L", (max(1, width // 8), max(1, height // 8)))
            image.load()
            turned = image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
    except UnidentifiedImageError:
        reason = "no image that Pillow knows"
    except Exception as error:  # a damaged file makes Pillow's decoders raise many types
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0] or type(error).__name__
    else:
        return (height, width) if turned else (width, height)
    raise PCDError(f"{path} cannot be read ({reason}); mend it, or take it out of the set")


def picture_sizes(
    paths: Sequence[Path], threads: int, tick: Tick, phase: str
) -> Iterator[tuple[Path, tuple[int, int] | PCDError]]:
    """Of each path in turn: its (width, height), or why it has none."""

    def look(path: Path) -> tuple[int, int] | PCDError:
        try:
            return picture_size(path)
        except PCDError as error:
            return error

    done, waiting = 0, iter(paths)
    with ThreadPoolExecutor(threads) as workers:
        while block := list(islice(waiting, _BLOCK)):
            tick(phase, done, len(paths))
            yield from zip(block, workers.map(look, block), strict=True)
            done += len(block)
    tick(phase, len(paths), len(paths))


def shared_pictures(first: Iterable[Path], second: Iterable[Path]) -> list[tuple[Path, Path]]:
    """Pairs of files, one of each side, with the same bytes; only files of equal length are read."""
    by_length: dict[int, tuple[list[Path], list[Path]]] = defaultdict(lambda: ([], []))
    for side, paths in enumerate((first, second)):
        for path in paths:
            by_length[path.stat().st_size][side].append(path)
    pairs = []
    for ours, theirs in by_length.values():
        if ours and theirs:
            known = {_sha256(path): path for path in reversed(ours)}
            pairs += [(known[content], path) for path in theirs if (content := _sha256(path)) in known]
    return pairs


def _sha256(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
