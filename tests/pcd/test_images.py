from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader, default_collate

from pcd.decode import decode_rgb
from pcd.errors import PCDError
from pcd.image_sources import open_images
from pcd.images import EpochBatches, TwoViewBatch, TwoViewImages, first_samples_hash, iterate
from pcd.photometric import PhotometricParameters, photometric
from pcd.settings import ViewSettings
from pcd.views import Window, cut_view
from pcd.write_shards import write_shards
from tests.pcd.slow_parameters import WORKER_THAT_RAISES


def _images(pool: Path, seed: int = 0, size: int = 32) -> TwoViewImages:
    return TwoViewImages(open_images(pool), ViewSettings(size=size), seed)


def _tensors(sample: Any) -> list[torch.Tensor]:
    return [sample] if isinstance(sample, torch.Tensor) else [t for part in sample for t in _tensors(part)]


def _equal(one: TwoViewBatch, other: TwoViewBatch) -> bool:
    return all(torch.equal(a, b) for a, b in zip(_tensors(one), _tensors(other), strict=True))


def _batches(pool: Path, workers: int = 0, **ranks: int) -> list[TwoViewBatch]:
    images = _images(pool)
    batches = EpochBatches(images.source, 8, seed=0, first=0, total=4, **ranks)
    return list(iterate(DataLoader(images, batch_sampler=batches, num_workers=workers)))


@pytest.fixture(params=["folder", "shards"])
def pool(request: pytest.FixtureRequest, image_pool: Path, tmp_path: Path) -> Path:
    if request.param == "folder":
        return image_pool
    write_shards(image_pool, tmp_path / "shards", shard_bytes=20_000)
    return tmp_path / "shards"


# ---- what a sample depends on


@pytest.mark.parametrize("workers", [1, 2])
def test_samples_do_not_depend_on_the_number_of_workers(pool: Path, workers: int) -> None:
    assert all(_equal(*pair) for pair in zip(_batches(pool, workers), _batches(pool), strict=True))


@pytest.mark.parametrize(("world", "accumulation"), [(2, 1), (1, 4), (4, 2)], ids=str)
def test_ranks_and_micro_batches_together_see_the_samples_of_one_process(
    pool: Path, world: int, accumulation: int
) -> None:
    ranks = [_batches(pool, world=world, rank=rank, accumulation=accumulation) for rank in range(world)]
    together = [
        [torch.cat(parts) for parts in zip(*map(_tensors, micro), strict=True)] for micro in zip(*ranks, strict=True)
    ]
    steps = [together[i : i + accumulation] for i in range(0, len(together), accumulation)]
    gathered = [[torch.cat(parts) for parts in zip(*step, strict=True)] for step in steps]
    for step, whole in zip(gathered, _batches(pool), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(step, _tensors(whole), strict=True))


def test_samples_do_not_depend_on_what_was_drawn_before(image_pool: Path) -> None:
    images = _images(image_pool)
    first = images[0, 3]
    torch.manual_seed(99)
    images[0, 5]
    assert _equal(images[0, 3], first)


def test_drawing_leaves_the_random_states_alone(image_pool: Path) -> None:
    torchs, numpys = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    _images(image_pool)[0, 3]
    assert torch.equal(torch.get_rng_state(), torchs)
    assert np.array_equal(np.random.get_state()[1], numpys)  # noqa: NPY002


@pytest.mark.parametrize(("seed", "epoch"), [(1, 0), (0, 1)], ids=["seed", "epoch"])
def test_samples_change_with(image_pool: Path, seed: int, epoch: int) -> None:
    one, other = _images(image_pool, seed)[epoch, 3], _images(image_pool)[0, 3]
    assert not torch.equal(one.view1.boxes, other.view1.boxes)
    assert not torch.equal(one.view2.photometric.hue, other.view2.photometric.hue)


def test_the_two_views_differ(image_pool: Path) -> None:
    sample = _images(image_pool)[0, 3]
    assert not torch.equal(sample.view1.boxes, sample.view2.boxes)
    assert not torch.equal(sample.view1.photometric.hue, sample.view2.photometric.hue)


def test_length_is_the_number_of_images(image_pool: Path) -> None:
    assert len(_images(image_pool)) == 24


# ---- what a sample holds


def test_batch_has_the_shapes_and_types_that_training_relies_on(image_pool: Path) -> None:
    (batch, *_) = _batches(image_pool)
    assert batch.view1.pixels.shape == (8, 3, 32, 32)
    assert batch.view1.pixels.dtype == torch.uint8
    assert batch.view1.boxes.shape == (8, 4)
    assert batch.view1.boxes.dtype == torch.float32
    assert (batch.view1.flipped.shape, batch.view1.flipped.dtype) == ((8,), torch.bool)
    assert batch.view1.photometric.order.shape == (8, 4)
    assert {tuple(p.shape) for p in batch.view1.photometric if p is not batch.view1.photometric.order} == {(8,)}
    assert (batch.indices.dtype, batch.unreadable.dtype) == (torch.int64, torch.int64)
    assert batch.unreadable.tolist() == [-1] * 8


def test_indices_are_those_of_the_order(image_pool: Path) -> None:
    expected = [[index for _, index in places] for places in EpochBatches(24, 8, seed=0, first=0, total=4)]
    assert [batch.indices.tolist() for batch in _batches(image_pool)] == expected


@pytest.mark.parametrize("exif", [None, 6], ids=["upright", "turned"])
def test_box_and_flip_say_which_part_of_the_upright_image_is_seen(tmp_path: Path, exif: int | None) -> None:
    """Cut from the image by its box, and flipped where it says so, a crop is the same pixels again."""
    noise = np.random.default_rng(0).integers(0, 256, (90, 130, 3), dtype=np.uint8)
    tags = Image.Exif()
    if exif:
        tags[0x0112] = exif
    Image.fromarray(noise).save(tmp_path / "a.jpg", exif=tags)
    images = _images(tmp_path)
    image = decode_rgb(images.source.read(0))
    height, width = image.shape[1:]
    assert (height, width) == ((130, 90) if exif else (90, 130))
    for epoch in range(10):
        for crops in images[epoch, 0][:2]:
            window = Window(
                *(round(s * side) for s, side in zip(crops.boxes.tolist(), (height, width) * 2, strict=True))
            )
            assert torch.equal(cut_view(image, window, bool(crops.flipped), 32), crops.pixels)


def test_boxes_lie_within_the_image(image_pool: Path) -> None:
    for batch in _batches(image_pool):
        top, left, height, width = batch.view1.boxes.T
        assert (torch.stack([top, left]) >= 0).all()
        assert (torch.stack([top + height, left + width]) <= 1 + 1e-6).all()


def test_moving_a_batch_leaves_the_parameters_with_the_host(image_pool: Path) -> None:
    (batch, *_) = _batches(image_pool)
    moved = batch.to(torch.device("meta"))
    assert {t.device.type for view in moved[:2] for t in view[:3]} == {"meta"}
    assert {t.device.type for view in moved[:2] for t in view.photometric} == {"cpu"}
    assert moved.indices is batch.indices


def test_whole_views_of_a_flat_image_are_flat(tmp_path: Path) -> None:
    Image.new("RGB", (80, 60), (200, 100, 50)).save(tmp_path / "a.png")
    batch = default_collate([_images(tmp_path)[epoch, 0] for epoch in range(20)])
    for crops in batch[:2]:
        views = photometric(crops.pixels, crops.photometric)
        assert views.flatten(2).std(dim=2).max() < 1e-3


# ---- images that cannot be read


@pytest.fixture
def broken(image_pool: Path, tmp_path: Path) -> Callable[..., Path]:
    """The pool with some images damaged, by number."""

    def make(*indices: int) -> Path:
        for i, path in enumerate(sorted(image_pool.iterdir())):
            data = path.read_bytes()
            (tmp_path / path.name).write_bytes(data[: len(data) // 2] if i in indices else data)
        return tmp_path

    return make


@pytest.mark.parametrize(
    ("damaged", "asked", "seen"),
    [((5,), 5, 6), ((5, 6), 5, 7), ((5, 6), 6, 7), ((23,), 23, 0), ((22, 23, 0), 22, 1)],
    ids=str,
)
def test_next_readable_image_is_seen_in_place_of_an_unreadable_one(
    broken: Callable[..., Path], damaged: tuple[int, ...], asked: int, seen: int
) -> None:
    sample = _images(broken(*damaged))[0, asked]
    assert (sample.indices.item(), sample.unreadable.item()) == (seen, asked)


def test_readable_image_is_seen_itself(broken: Callable[..., Path]) -> None:
    sample = _images(broken(5))[0, 6]
    assert (sample.indices.item(), sample.unreadable.item()) == (6, -1)


def test_replacement_is_another_view_than_the_image_in_its_own_place(broken: Callable[..., Path]) -> None:
    images = _images(broken(5))
    assert not torch.equal(images[0, 5].view1.boxes, images[0, 6].view1.boxes)


def test_an_epoch_names_every_unreadable_image_once(broken: Callable[..., Path]) -> None:
    met = torch.cat([batch.unreadable for batch in _batches(broken(3, 4, 20))[:3]])
    assert sorted(met[met >= 0].tolist()) == [3, 4, 20]


def test_file_that_vanished_is_unreadable(image_pool: Path, broken: Callable[..., Path]) -> None:
    images = _images(broken())
    Path(images.source.name(5)).unlink()
    assert images[0, 5].unreadable == 5


@pytest.mark.parametrize("workers", [0, WORKER_THAT_RAISES])
def test_pool_of_nothing_but_unreadable_images_is_the_users_error_in_one_line(
    broken: Callable[..., Path], workers: int
) -> None:
    with pytest.raises(PCDError, match="nor the 23 before it") as caught:
        _batches(broken(*range(24)), workers)
    assert str(caught.value).startswith("cannot read image")
    assert "\n" not in str(caught.value)


# ---- the hash of the first samples


def test_hash_is_that_of_the_samples(image_pool: Path) -> None:
    hashes = [first_samples_hash(_batches(image_pool, workers)[0]) for workers in (0, 1)]
    assert hashes[0] == hashes[1]
    assert len(hashes[0]) == 64


def test_hash_changes_with_any_value(image_pool: Path) -> None:
    (batch, *_) = _batches(image_pool)

    def flipped(t: torch.Tensor) -> torch.Tensor:
        changed = t.clone()
        changed.view(-1)[0] = ~changed.view(-1)[0] if t.dtype == torch.bool else changed.view(-1)[0] + 1
        return changed

    crops = batch.view2
    changed = [crops._replace(**{name: flipped(getattr(crops, name))}) for name in ("pixels", "boxes", "flipped")]
    parameters = crops.photometric
    changed += [
        crops._replace(photometric=parameters._replace(**{name: flipped(getattr(parameters, name))}))
        for name in PhotometricParameters._fields
    ]
    hashes = {first_samples_hash(batch._replace(view2=view)) for view in changed}
    assert len(hashes - {first_samples_hash(batch)}) == len(changed)


# ---- the order

SIZES = st.tuples(st.integers(1, 40), st.integers(1, 12)).filter(lambda size: size[0] >= size[1])
"""Images and global batch."""


@given(size=SIZES, seed=st.integers(0, 1000), steps=st.integers(0, 20))
def test_every_image_is_met_at_most_once_in_an_epoch(size: tuple[int, int], seed: int, steps: int) -> None:
    met = [place for batch in EpochBatches(*size, seed, 0, steps) for place in batch]
    assert len(met) == len(set(met))


@given(size=SIZES, seed=st.integers(0, 1000), steps=st.integers(1, 20))
def test_places_are_within_the_images(size: tuple[int, int], seed: int, steps: int) -> None:
    indices = {index for batch in EpochBatches(*size, seed, 0, steps) for _, index in batch}
    assert indices <= set(range(size[0]))


@given(size=SIZES, seed=st.integers(0, 1000), steps=st.integers(0, 20))
def test_every_batch_is_full(size: tuple[int, int], seed: int, steps: int) -> None:
    assert [len(batch) for batch in EpochBatches(*size, seed, 0, steps)] == [size[1]] * steps


@given(
    size=SIZES,
    seed=st.integers(0, 1000),
    world=st.integers(1, 5),
    accumulation=st.integers(1, 4),
    steps=st.integers(1, 12),
)
def test_ranks_in_order_and_micro_batches_in_time_give_the_global_batch(
    size: tuple[int, int], seed: int, world: int, accumulation: int, steps: int
) -> None:
    ranks = [iter(EpochBatches(*size, seed, 0, steps, rank, world, accumulation)) for rank in range(world)]
    together = [[place for _ in range(accumulation) for rank in ranks for place in next(rank)] for _ in range(steps)]
    assert together == list(EpochBatches(*size, seed, 0, steps))


def test_micro_batches_and_blocks_are_equally_long_where_they_divide() -> None:
    batches = list(EpochBatches(100, 48, 0, 0, 2, rank=1, world=4, accumulation=3))
    assert [len(batch) for batch in batches] == [4] * 6


@given(size=SIZES, seed=st.integers(0, 1000), steps=st.integers(0, 20), accumulation=st.integers(1, 3), data=st.data())
def test_a_later_start_gives_the_tail_of_the_whole(
    size: tuple[int, int], seed: int, steps: int, accumulation: int, data: st.DataObject
) -> None:
    first = data.draw(st.integers(0, steps))
    whole, tail = (list(EpochBatches(*size, seed, f, steps, accumulation=accumulation)) for f in (0, first))
    assert tail == whole[first * accumulation :]


@pytest.mark.parametrize("accumulation", [1, 4])
def test_length_is_the_number_of_batches_left(accumulation: int) -> None:
    batches = EpochBatches(24, 8, 0, 2, 7, accumulation=accumulation)
    assert len(batches) == len(list(batches)) == 5 * accumulation


@pytest.mark.parametrize(("seed", "epoch"), [(1, 0), (0, 1)], ids=["seed", "epoch"])
def test_order_changes_with(seed: int, epoch: int) -> None:
    def order(seed: int, epoch: int) -> list[int]:
        (batch,) = EpochBatches(20, 20, seed, epoch, epoch + 1)
        return [index for _, index in batch]

    assert order(seed, epoch) != order(0, 0)


def test_order_is_the_sources_own(pool: Path) -> None:
    source = open_images(pool)
    places = [place for batch in EpochBatches(source, 8, seed=3, first=3, total=6) for place in batch]
    assert places == [(1, index) for index in source.epoch_order(1, 3)]
