"""Two crops of unlabelled images, what shall be done to their colours, and the order in which training meets them.

Workers decode, crop and draw; `pcd.photometric` does the rest on the device, a batch at once.
"""

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.utils.data import Dataset

from pcd.decode import UnreadableImageError, decode_rgb
from pcd.errors import PCDError
from pcd.image_sources import ImageSource, shuffled
from pcd.photometric import PhotometricParameters, draw_parameters
from pcd.random_streams import view_stream
from pcd.settings import ViewSettings
from pcd.views import cut_view, draw_flip, draw_window

__all__ = [
    "Crops",
    "EpochBatches",
    "TwoViewBatch",
    "TwoViewImages",
    "batch_from_plain",
    "first_samples_hash",
    "iterate",
]

_Batch = TypeVar("_Batch")

_MOST_IN_A_ROW: Final = 100
"""So many unreadable images behind each other are no accident."""


class Crops(NamedTuple):
    """One view of each image of a batch, before anything is done to its colours."""

    pixels: Tensor
    """(B, 3, S, S) uint8."""
    boxes: Tensor
    """(B, 4) float32: top, left, height, width of the crop as shares of the upright image's sides."""
    flipped: Tensor
    """(B,) bool: mirrored left to right, behind the crop."""
    photometric: PhotometricParameters

    def to(self, device: torch.device) -> "Crops":
        """All but the photometric parameters, which the host reads (see `pcd.photometric.photometric`)."""
        pixels, boxes, flipped = (values.to(device, non_blocking=True) for values in self[:3])
        return Crops(pixels, boxes, flipped, self.photometric)


class TwoViewBatch(NamedTuple):
    view1: Crops
    view2: Crops
    indices: Tensor
    """(B,) int64: numbers of the images that are seen."""
    unreadable: Tensor
    """(B,) int64: number of the image that could not be read and in whose place this one is seen, else -1."""

    def to(self, device: torch.device) -> "TwoViewBatch":
        """The views on a device; the numbers stay with the host."""
        return self._replace(view1=self.view1.to(device), view2=self.view2.to(device))


def batch_from_plain(plain: tuple[Any, ...]) -> TwoViewBatch:
    """Give plain nested tuples of a batch's tensors, as a file loaded in safe mode holds them, their names again."""
    view1, view2, indices, unreadable = plain
    return TwoViewBatch(_crops_from_plain(view1), _crops_from_plain(view2), indices, unreadable)


def _crops_from_plain(plain: tuple[Any, ...]) -> Crops:
    pixels, boxes, flipped, colours = plain
    return Crops(pixels, boxes, flipped, PhotometricParameters(*colours))


class TwoViewImages(Dataset[TwoViewBatch]):
    """Indexed by (epoch, image): a sample (a TwoViewBatch without B), random by seed, epoch, image and view alone.

    In place of an image that cannot be read the next one that can is seen, by the random numbers of the former.
    """

    def __init__(self, source: ImageSource, views: ViewSettings, seed: int) -> None:
        self.source = source
        self.views = views
        self.seed = seed

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, place: tuple[int, int]) -> TwoViewBatch:
        """Raises PCDError if very many images in a row cannot be read."""
        epoch, index = place
        image, seen = self._read(index)
        view1, view2 = (self._crop(image, epoch, index, view) for view in (1, 2))
        unreadable = -1 if seen == index else index
        return TwoViewBatch(view1, view2, *torch.tensor((seen, unreadable)).unbind())

    def _read(self, index: int) -> tuple[Tensor, int]:
        """The pixels and the number of the first image from `index` on that can be read."""
        tries = min(_MOST_IN_A_ROW, len(self.source))
        for step in range(tries):
            place = (index + step) % len(self.source)
            try:
                return decode_rgb(self.source.read(place)), place
            except (OSError, UnreadableImageError) as error:
                reason = error
        raise PCDError(
            f"cannot read image {self.source.name(place)} ({reason}), nor the {tries - 1} before it; check the pool"
        )

    def _crop(self, image: Tensor, epoch: int, index: int, view: int) -> Crops:
        random = view_stream(self.seed, epoch, index, view)
        height, width = image.shape[1:]
        window = draw_window(random, height, width, self.views)
        flipped = draw_flip(random)
        box = (window.top / height, window.left / width, window.height / height, window.width / width)
        return Crops(
            cut_view(image, window, flipped, self.views.size),
            torch.tensor(box, dtype=torch.float32),
            torch.tensor(flipped),
            draw_parameters(random, self.views, view),
        )


def iterate(loader: Iterable[_Batch]) -> Iterator[_Batch]:
    """The loader's batches; an error of a worker without the traceback that torch wraps around it."""
    try:
        yield from loader
    except PCDError as error:
        last = str(error).strip().splitlines()[-1]
        raise PCDError(last.removeprefix(f"{PCDError.__module__}.PCDError: ")) from None


def first_samples_hash(batch: TwoViewBatch) -> str:
    """SHA-256 over the pixels and parameters of a batch: equal where two runs start from the same samples."""
    digest = hashlib.sha256()
    for view in (batch.view1, batch.view2):
        for values in (*view[:3], *view.photometric):
            digest.update(f"{values.dtype} {tuple(values.shape)}".encode())
            digest.update(values.cpu().numpy().tobytes())
    return digest.hexdigest()


class EpochBatches:
    """This rank's micro-batches of (epoch, image) for the optimizer's steps `first` to `total`.

    Every epoch is one seeded order, cut into global batches; an incomplete last one is left out. A global batch is cut
    into `accumulation` micro-batches and each of them into a block for every rank, so what ranks gather in their order
    is the global batch in its order.

    Args:
        source: what orders its images itself, or a number of images.
    """

    def __init__(
        self,
        source: ImageSource | int,
        global_batch: int,
        seed: int,
        first: int,
        total: int,
        rank: int = 0,
        world: int = 1,
        accumulation: int = 1,
    ) -> None:
        self.source, self.global_batch, self.seed = source, global_batch, seed
        self.first, self.total = first, total
        self.rank, self.world, self.accumulation = rank, world, accumulation

    @property
    def steps_per_epoch(self) -> int:
        return (self.source if isinstance(self.source, int) else len(self.source)) // self.global_batch

    def __len__(self) -> int:
        return (self.total - self.first) * self.accumulation

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for step in range(self.first, self.total):
            epoch, place = divmod(step, self.steps_per_epoch)
            if place == 0 or step == self.first:
                order = self._order(epoch)
            batch = order[place * self.global_batch : (place + 1) * self.global_batch]
            for micro in range(self.accumulation):
                block = _part(_part(batch, micro, self.accumulation), self.rank, self.world)
                yield [(epoch, index) for index in block]

    def _order(self, epoch: int) -> list[int]:
        if isinstance(self.source, int):
            order: list[int] = shuffled(self.source, epoch, self.seed).tolist()
        else:
            order = self.source.epoch_order(epoch, self.seed).tolist()
        return order


def _part(items: list[int], number: int, parts: int) -> list[int]:
    """One of several contiguous parts, equally long or nearly so."""
    return items[len(items) * number // parts : len(items) * (number + 1) // parts]
