"""The input pipeline against a Pillow pipeline of the same operations: two 224-pixel views of 500 x 380 JPEGs.

One image at a time on one core, as a loading worker has it. "Worker" is decoding, two crops and the drawing of all
random numbers; the photometric part is measured apart, since it runs on the training's device, a batch at once.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from PIL import Image
from torch.utils.data import default_collate

from pcd.bench.harness import Row, Skipped, compare_times
from pcd.bench.jpegs import write_jpegs
from pcd.bench.pil_views import PilTwoViews
from pcd.image_sources import open_images
from pcd.images import TwoViewImages
from pcd.photometric import photometric
from pcd.settings import ViewSettings

__all__ = ["input_suite"]

_IMAGES = 32


def input_suite(device: torch.device) -> Iterator[Row | Skipped]:
    settings = ViewSettings()
    pil = PilTwoViews(settings)
    with tempfile.TemporaryDirectory() as folder, _one_thread():
        paths = write_jpegs(Path(folder), _IMAGES)
        images = TwoViewImages(open_images(Path(folder)), settings, seed=0)

        def by_pillow() -> None:
            for path in paths:
                with Image.open(path) as image:
                    pil(image.convert("RGB"))

        def worker() -> None:
            for i in range(_IMAGES):
                images[0, i]

        batch = default_collate([images[0, i] for i in range(_IMAGES)]).to(device)

        def colours() -> None:
            for crops in batch[:2]:
                photometric(crops.pixels, crops.photometric)

        def whole() -> None:
            for crops in default_collate([images[0, i] for i in range(_IMAGES)]).to(device)[:2]:
                photometric(crops.pixels, crops.photometric)

        note = f"{_IMAGES} images, one core"
        yield compare_times("input, worker side", worker, by_pillow, torch.device("cpu"), note=note)
        yield compare_times("input, photometric part", colours, by_pillow, device, note=note)
        yield compare_times("input, both", whole, by_pillow, device, note=note)


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
