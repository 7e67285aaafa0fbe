from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from pcd.errors import PCDError
from pcd.image_folder import list_images
from pcd.images import EpochBatches, TwoViewImages
from pcd.settings import ViewSettings
from pcd.views import TwoViews


def _images(pool: Path, seed: int = 0) -> TwoViewImages:
    return TwoViewImages(list_images(pool), TwoViews(ViewSettings(size=32)), seed)


def _all_views(pool: Path, workers: int) -> Tensor:
    loader: DataLoader[tuple[Tensor, Tensor]] = DataLoader(
        _images(pool), batch_sampler=EpochBatches(24, 8, seed=0, first=0, total=4), num_workers=workers
    )
    return torch.stack([torch.stack(list(views)) for views in loader])


@pytest.mark.parametrize("workers", [1, 2])
def test_views_do_not_depend_on_the_number_of_workers(image_pool: Path, workers: int) -> None:
    assert torch.equal(_all_views(image_pool, workers), _all_views(image_pool, 0))


def test_views_do_not_depend_on_what_was_drawn_before(image_pool: Path) -> None:
    images = _images(image_pool)
    first = images[0, 3]
    torch.manual_seed(99)
    images[0, 5]
    assert torch.equal(torch.stack(images[0, 3]), torch.stack(first))


def test_drawing_views_leaves_torchs_random_state_alone(image_pool: Path) -> None:
    before = torch.get_rng_state()
    _images(image_pool)[0, 3]
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("seed", "epoch"), [(1, 0), (0, 1)], ids=["seed", "epoch"])
def test_views_change_with(image_pool: Path, seed: int, epoch: int) -> None:
    assert not torch.equal(_images(image_pool, seed)[epoch, 3][0], _images(image_pool)[0, 3][0])


def test_length_is_the_number_of_images(image_pool: Path) -> None:
    assert len(_images(image_pool)) == 24


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1"])
def test_images_of_every_mode_become_rgb(tmp_path: Path, mode: str) -> None:
    suffix = "jpg" if mode == "CMYK" else "png"
    Image.new("RGB", (40, 40), (200, 10, 10)).convert(mode).save(tmp_path / f"a.{suffix}")
    assert _images(tmp_path)[0, 0][0].shape == (3, 32, 32)


def _noise_image(path: Path, size: int = 40) -> bytes:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)).save(path)
    return path.read_bytes()


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5], ids=["empty", "header", "half"])
def test_truncated_image_is_the_users_error(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"broken.{suffix}"
    whole = _noise_image(path)
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(PCDError, match=rf"cannot read image .*broken\.{suffix}"):
        _images(tmp_path)[0, 0]


def test_png_with_a_damaged_chunk_is_the_users_error(tmp_path: Path) -> None:
    path = tmp_path / "broken.png"
    whole = _noise_image(path, size=300)  # large enough for several chunks of pixels
    last = whole.rindex(b"IDAT")
    path.write_bytes(whole[:last] + b"\xa3" * 4 + whole[last + 4 :])
    with pytest.raises(PCDError, match=r"cannot read image .*broken\.png"):
        _images(tmp_path)[0, 0]


def test_image_of_absurd_size_is_the_users_error(tmp_path: Path) -> None:
    path = tmp_path / "broken.bmp"
    whole = bytearray(_noise_image(path))
    whole[18:26] = (200_000).to_bytes(4, "little") * 2  # width and height in the header
    path.write_bytes(whole)
    with pytest.raises(PCDError, match=r"cannot read image .*broken\.bmp"):
        _images(tmp_path)[0, 0]


def test_file_that_vanished_is_the_users_error(tmp_path: Path) -> None:
    _noise_image(tmp_path / "a.png")
    images = _images(tmp_path)
    (tmp_path / "a.png").unlink()
    with pytest.raises(PCDError, match=r"cannot read image .*a\.png"):
        images[0, 0]


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


@given(size=SIZES, seed=st.integers(0, 1000), world=st.integers(1, 5), steps=st.integers(1, 12))
def test_ranks_partition_the_global_batch(size: tuple[int, int], seed: int, world: int, steps: int) -> None:
    whole = [set(batch) for batch in EpochBatches(*size, seed, 0, steps)]
    ranks = [list(EpochBatches(*size, seed, 0, steps, rank, world)) for rank in range(world)]
    together = [[place for rank in ranks for place in rank[step]] for step in range(steps)]
    assert [sorted(places) for places in together] == [sorted(places) for places in whole]


@given(size=SIZES, seed=st.integers(0, 1000), steps=st.integers(0, 20), data=st.data())
def test_a_later_start_gives_the_tail_of_the_whole(
    size: tuple[int, int], seed: int, steps: int, data: st.DataObject
) -> None:
    first = data.draw(st.integers(0, steps))
    assert list(EpochBatches(*size, seed, first, steps)) == list(EpochBatches(*size, seed, 0, steps))[first:]


def test_length_is_the_number_of_steps_left() -> None:
    assert len(EpochBatches(24, 8, seed=0, first=2, total=7)) == len(list(EpochBatches(24, 8, 0, 2, 7))) == 5


@pytest.mark.parametrize(("seed", "epoch"), [(1, 0), (0, 1)], ids=["seed", "epoch"])
def test_order_changes_with(seed: int, epoch: int) -> None:
    def order(seed: int, epoch: int) -> list[int]:
        (batch,) = EpochBatches(20, 20, seed, epoch, epoch + 1)
        return [index for _, index in batch]

    assert order(seed, epoch) != order(0, 0)
