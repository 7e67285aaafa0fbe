from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pcd.errors import PCDError
from pcd.folder_index import FolderIndex
from pcd.image_folder import Listing
from pcd.image_sources import FolderImages
from pcd.unreadable import UnreadableImages


def _counter(images: int = 20_000, max_share: float = 0.01) -> UnreadableImages:
    listing = Listing(Path("pool"), [f"{i}.jpg" for i in range(images)], [1] * images)
    return UnreadableImages(max_share, FolderImages(FolderIndex.of(listing)))


def _batch(*unreadable: int, size: int = 100) -> Tensor:
    return torch.tensor([*unreadable, *[-1] * (size - len(unreadable))])


def test_each_image_is_named_once(capsys: pytest.CaptureFixture[str]) -> None:
    counter = _counter()
    for batch in (_batch(7, 3), _batch(), _batch(3, 9)):
        counter.note(batch)
    names = [line.split()[3].rstrip(";") for line in capsys.readouterr().out.splitlines()]
    assert names == ["pool/3.jpg", "pool/7.jpg", "pool/9.jpg"]


def test_each_image_counts_once() -> None:
    counter = _counter()
    counter.note(_batch(7, 3))
    counter.note(_batch(3))
    assert counter.on_all_ranks() == [3, 7]


def test_nothing_is_said_where_all_is_well(capsys: pytest.CaptureFixture[str]) -> None:
    counter = _counter()
    counter.note(_batch())
    assert counter.on_all_ranks() == []
    assert capsys.readouterr().out == ""


def test_first_image_of_a_large_pool_stops_nothing() -> None:
    _counter().note(_batch(0, size=1))


def test_pool_with_fewer_than_the_share_passes_whatever_their_order() -> None:
    """0.8 % of 20,000 images, where 1 % may be."""
    for seed in range(5):
        counter, random = _counter(), np.random.default_rng(seed)
        order = random.permutation(20_000).reshape(-1, 200)
        for batch in order:
            counter.note(torch.from_numpy(np.where(batch < 160, batch, -1)))


def test_pool_with_exactly_the_share_passes_when_they_come_spread() -> None:
    counter = _counter(1000)
    for i in range(10):
        counter.note(_batch(i))


def test_pool_with_more_than_the_share_fails_by_its_end() -> None:
    counter = _counter(1000)
    for i in range(10):
        counter.note(_batch(i, size=80))
    with pytest.raises(PCDError, match=r"cannot read 11 of 880 images, the latest pool/10\.jpg"):
        counter.note(_batch(10, size=80))


def test_wrong_mount_fails_within_the_first_batch() -> None:
    with pytest.raises(PCDError, match="max_unreadable_share"):
        _counter().note(torch.arange(100))


def test_none_may_be_unreadable_where_the_share_is_0() -> None:
    with pytest.raises(PCDError, match=r"pool/5\.jpg"):
        _counter(max_share=0.0).note(_batch(5))


def test_all_may_be_unreadable_where_the_share_is_1() -> None:
    _counter(100, max_share=1.0).note(torch.arange(100))


def test_single_image_of_a_small_pool_is_too_many() -> None:
    with pytest.raises(PCDError, match="cannot read 1 of 8 images"):
        _counter(24).note(_batch(2, size=8))


def test_later_epochs_do_not_water_the_share_down() -> None:
    counter = _counter(1000)
    for i in range(500):
        counter.note(_batch(i % 10))
    with pytest.raises(PCDError, match="11 of 1000"):
        counter.note(_batch(10))
