import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from webdataset import TarWriter

from pcd.errors import PCDError
from pcd.image_folder import scan_pool
from pcd.image_sources import (
    SHARDS_TOGETHER,
    FolderImages,
    ImageSource,
    ShardImages,
    open_images,
    open_listing,
    open_pool,
    save_index,
    shuffled,
)
from pcd.shards import ShardIndex


def _folder(root: Path, images: int = 7) -> Path:
    for i in range(images):
        path = root / f"n{i % 2}" / f"ü{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"image {i}".encode())
    return root


def _shards(root: Path, shards: int = 3, images: int = 4) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for shard in range(shards):
        with TarWriter(str(root / f"{shard:03}.tar")) as tar:
            for i in range(images):
                sample = {"__key__": f"{shard}-{i}", "jpg": f"image {shard}-{i}".encode(), "cls": str(i)}
                tar.write(sample)
    return root


KINDS: dict[str, Callable[[Path], Path]] = {"folder": _folder, "shards": _shards}


@pytest.fixture(params=KINDS)
def source(request: pytest.FixtureRequest, tmp_path: Path) -> ImageSource:
    return open_images(KINDS[request.param](tmp_path / "pool"))


def test_folder_gives_the_bytes_of_its_files(tmp_path: Path) -> None:
    source = open_images(_folder(tmp_path))
    assert isinstance(source, FolderImages)
    assert [source.read(i) for i in range(len(source))] == [f"image {i}".encode() for i in (0, 2, 4, 6, 1, 3, 5)]
    assert source.name(0) == str(tmp_path / "n0" / "ü0.jpg")


def test_shards_give_the_bytes_of_their_images_and_of_nothing_else(tmp_path: Path) -> None:
    source = open_images(_shards(tmp_path))
    assert isinstance(source, ShardImages)
    assert [source.read(i) for i in range(12)] == [f"image {s}-{i}".encode() for s in range(3) for i in range(4)]
    assert len(source) == 12
    assert source.name(5) == f"{tmp_path / '001.tar'}:1-1.jpg"


def test_pattern_chooses_shards(tmp_path: Path) -> None:
    _shards(tmp_path, shards=12, images=1)
    assert len(open_images(tmp_path / "01*.tar")) == 2


def test_folder_with_images_beside_archives_is_a_folder_of_images(tmp_path: Path) -> None:
    _shards(_folder(tmp_path) / "downloads")
    assert len(open_images(tmp_path)) == 7


def test_file_that_vanished_is_an_os_error(tmp_path: Path) -> None:
    source = open_images(_folder(tmp_path))
    (tmp_path / "n0" / "ü0.jpg").unlink()
    with pytest.raises(OSError, match="ü0"):
        source.read(0)


def test_shard_cut_short_behind_its_index_is_an_os_error(tmp_path: Path) -> None:
    source = open_images(_shards(tmp_path, shards=1))
    shard = tmp_path / "000.tar"
    shard.write_bytes(shard.read_bytes()[:600])
    with pytest.raises(OSError, match="ends"):
        source.read(3)


def test_more_shards_than_stay_open_are_read(tmp_path: Path) -> None:
    source = open_images(_shards(tmp_path, shards=2 * SHARDS_TOGETHER + 5, images=1))
    everything = range(len(source))
    assert [source.read(i) for i in (*everything, *everything)] == [f"image {i}-0".encode() for i in everything] * 2


@pytest.mark.parametrize("epoch", [0, 1])
def test_epoch_meets_every_image_once(source: ImageSource, epoch: int) -> None:
    assert sorted(source.epoch_order(epoch, seed=0)) == list(range(len(source)))


@pytest.mark.parametrize(("epoch", "seed"), [(1, 0), (0, 1)], ids=["epoch", "seed"])
def test_order_changes_with(source: ImageSource, epoch: int, seed: int) -> None:
    assert list(source.epoch_order(epoch, seed)) != list(source.epoch_order(0, 0))


def test_order_is_the_same_whenever_it_is_asked_for(source: ImageSource) -> None:
    assert list(source.epoch_order(3, 5)) == list(source.epoch_order(3, 5))


@given(images=st.integers(0, 200), epoch=st.integers(0, 10), seed=st.integers(0, 2**62))
def test_shuffled_is_a_permutation(images: int, epoch: int, seed: int) -> None:
    assert sorted(shuffled(images, epoch, seed)) == list(range(images))


def _many_shards(shards: int, images: int) -> ShardImages:
    first = np.arange(shards + 1) * images
    nothing = np.zeros(shards * images, dtype=np.int64)
    return ShardImages(
        ShardIndex(
            [Path(str(s)) for s in range(shards)], nothing[:shards], first, nothing, nothing, nothing.astype("S")
        )
    )


def test_epoch_walks_through_a_few_shards_at_a_time() -> None:
    order = _many_shards(10 * SHARDS_TOGETHER, 5).epoch_order(0, 0)
    groups = order.reshape(10, -1) // 5  # shards
    assert [len(set(group)) for group in groups] == [SHARDS_TOGETHER] * 10


def test_images_are_mixed_within_the_shards_of_the_time() -> None:
    order = _many_shards(SHARDS_TOGETHER, 50).epoch_order(0, 0)
    neighbours = np.mean(order[1:] // 50 == order[:-1] // 50)
    assert neighbours < 3 / SHARDS_TOGETHER


def test_each_epoch_groups_other_shards() -> None:
    source = _many_shards(4 * SHARDS_TOGETHER, 1)
    one, other = (set(source.epoch_order(epoch, 0)[:SHARDS_TOGETHER]) for epoch in (0, 1))
    assert len(one & other) < SHARDS_TOGETHER / 2


def test_pool_of_a_data_stage_is_opened(tmp_path: Path) -> None:
    _folder(tmp_path / "pool")
    (tmp_path / "data.json").write_text(json.dumps({"pool": "pool"}))
    assert len(open_pool(tmp_path)) == 7


@pytest.fixture(params=KINDS)
def stored(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A data stage's folder with its index, beside the pool."""
    listing = scan_pool(KINDS[request.param](tmp_path / "pool"))
    data = tmp_path / "data"
    data.mkdir()
    (data / "data.json").write_text(json.dumps({"pool": str(tmp_path / "pool")}))
    save_index(open_listing(listing), listing, data)
    return data


def _contents(source: ImageSource) -> list[bytes]:
    return [bytes(source.read(i)) for i in range(len(source))]


def test_index_of_a_data_stage_is_used_in_place_of_listing_the_pool(stored: Path, tmp_path: Path) -> None:
    before = _contents(open_images(tmp_path / "pool"))
    (tmp_path / "pool" / "new.jpg").write_bytes(b"not in the index")
    assert _contents(open_pool(stored)) == before


def test_index_is_good_where_the_pool_was_moved(stored: Path, tmp_path: Path) -> None:
    before = _contents(open_pool(stored))
    moved = (tmp_path / "pool").rename(tmp_path / "moved")
    assert _contents(open_pool(stored, {"pool": str(moved)})) == before


@pytest.mark.parametrize("change", ["gone", "longer"])
def test_index_that_no_longer_fits_is_the_users_error(stored: Path, tmp_path: Path, change: str) -> None:
    file = sorted(path for path in (tmp_path / "pool").rglob("*") if path.is_file())[0]
    if change == "gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(PCDError, match="is gone or was changed since the data stage"):
        open_pool(stored)


@pytest.mark.parametrize("name", ["none", "none-*.tar"])
def test_missing_pool_is_the_users_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(PCDError, match=r"data\.pool"):
        open_images(tmp_path / name)
