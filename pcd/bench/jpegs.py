"""Photographs' stand-ins: JPEG files of ImageNet's usual size, with detail at every scale as photographs have it."""

from pathlib import Path

import numpy as np
from PIL import Image

__all__ = ["write_jpegs"]

_WIDTH, _HEIGHT = 500, 380


def write_jpegs(folder: Path, count: int, seed: int = 0) -> list[Path]:
    """`count` files of 500 x 380 pixels at quality 90, of about 60 to 110 kB, as ImageNet's."""
    random = np.random.default_rng(seed)
    paths = []
    for i in range(count):
        image = np.zeros((_HEIGHT, _WIDTH, 3), dtype=np.float32)
        for cells in (3, 6, 12, 24, 48, 96, 190):  # each octave of half the strength of the one before
            coarse = random.standard_normal((cells, cells * 4 // 3, 3)).astype(np.float32) / cells
            image += np.stack([_enlarge(coarse[..., channel]) for channel in range(3)], axis=-1)
        image = 128 + 60 * image / image.std()
        path = folder / f"{i:04}.jpg"
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(path, quality=90)
        paths.append(path)
    return paths


def _enlarge(plane: np.ndarray) -> np.ndarray:
    enlarged = Image.fromarray(plane).resize((_WIDTH, _HEIGHT), Image.Resampling.BICUBIC)
    return np.asarray(enlarged)
