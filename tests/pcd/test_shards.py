import dataclasses
import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from webdataset import ShardWriter, TarWriter
from webdataset.tariterators import group_by_keys, tar_file_iterator

from pcd.errors import PCDError
from pcd.shards import ShardIndex, index_shards


def _write(path: Path, members: dict[str, bytes], **options: Any) -> Path:
    with tarfile.open(path, "w", **options) as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def _contents(index: ShardIndex) -> list[bytes]:
    whole = [index.shards[index.shard_of(i)].read_bytes() for i in range(len(index.offsets))]
    return [w[o : o + s] for w, o, s in zip(whole, index.offsets, index.sizes, strict=True)]


def _read_by_webdataset(shard: Path) -> list[dict[str, Any]]:
    with shard.open("rb") as file:
        return list(group_by_keys(member | {"__url__": str(shard)} for member in tar_file_iterator(file)))


def test_index_finds_what_webdatasets_own_reader_reads(tmp_path: Path) -> None:
    with ShardWriter(f"{tmp_path}/%03d.tar", maxcount=4, verbose=0) as shards:
        for i in range(10):
            shards.write({"__key__": f"n01/{i}", "jpg": b"x" * (1 + 700 * i), "cls": str(i), "json": {"i": i}})
    paths = sorted(tmp_path.glob("*.tar"))
    read = [sample for path in paths for sample in _read_by_webdataset(path)]
    index = index_shards(paths)
    assert _contents(index) == [sample["jpg"] for sample in read]
    assert index.names.tolist() == [f"{sample['__key__']}.jpg".encode() for sample in read]
    assert index.first.tolist() == [0, 4, 8, 10]


@pytest.mark.parametrize("format_", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_of_any_length_are_indexed(tmp_path: Path, format_: int) -> None:
    members = {f"{'deep/' * 15}é{i}.png": f"image {i}".encode() for i in range(3)}
    index = index_shards([_write(tmp_path / "a.tar", members, format=format_)])
    assert _contents(index) == list(members.values())


def test_shard_without_images_has_no_place(tmp_path: Path) -> None:
    full, empty = {"a.jpg": b"a", "b.jpg": b"b"}, {"readme.txt": b"no image"}
    paths = [_write(tmp_path / f"{i}.tar", members) for i, members in enumerate((empty, full, empty, full))]
    index = index_shards(paths)
    assert index.first.tolist() == [0, 0, 2, 2, 4]
    assert [index.shard_of(i) for i in range(4)] == [1, 1, 3, 3]


def test_folders_and_links_are_no_images(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, kind in (("folder.jpg", tarfile.DIRTYPE), ("link.jpg", tarfile.SYMTYPE)):
            member = tarfile.TarInfo(name)
            member.type = kind
            tar.addfile(member)
        tar.addfile(tarfile.TarInfo("image.jpg"))
    assert index_shards([tmp_path / "a.tar"]).names.tolist() == [b"image.jpg"]


def test_processes_find_what_one_finds(tmp_path: Path) -> None:
    paths = [_write(tmp_path / f"{i}.tar", {f"{i}.jpg": b"x" * i}) for i in range(1, 6)]
    one, many = (dataclasses.asdict(index_shards(paths, processes)) for processes in (1, 2))
    assert all(np.array_equal(one[name], many[name]) for name in one)


def test_saved_index_is_read_back(tmp_path: Path) -> None:
    index = index_shards([_write(tmp_path / f"{i}ü.tar", {f"é{i}.jpg": b"x", "b.png": b"yy"}) for i in range(3)])
    index.save(tmp_path / "index.npz", tmp_path)
    before, after = (dataclasses.asdict(i) for i in (index, ShardIndex.load(tmp_path / "index.npz", tmp_path)))
    assert all(np.array_equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("change", ["gone", "longer"])
def test_shard_that_changed_since_is_the_users_error(tmp_path: Path, change: str) -> None:
    shard = _write(tmp_path / "a.tar", {"a.jpg": b"a"})
    index_shards([shard]).save(tmp_path / "index.npz", tmp_path)
    if change == "gone":
        shard.unlink()
    else:
        shard.write_bytes(shard.read_bytes() + b"more")
    with pytest.raises(PCDError, match=r"shard .*a\.tar is gone or was changed"):
        ShardIndex.load(tmp_path / "index.npz", tmp_path)


@pytest.mark.parametrize("processes", [1, 2])
def test_truncated_shard_is_the_users_error(tmp_path: Path, processes: int) -> None:
    shard = _write(tmp_path / "a.tar", {"a.jpg": b"a" * 5000})
    shard.write_bytes(shard.read_bytes()[:3000])
    whole = _write(tmp_path / "b.tar", {"b.jpg": b"b"})
    with pytest.raises(PCDError, match=r"shard .*a\.tar is no whole, uncompressed tar file"):
        index_shards([whole, shard], processes)


def test_compressed_shard_is_the_users_error(tmp_path: Path) -> None:
    with TarWriter(str(tmp_path / "a.tar"), compress=True) as tar:
        tar.write({"__key__": "a", "jpg": b"a"})
    with pytest.raises(PCDError, match=r"a\.tar is no whole, uncompressed tar file"):
        index_shards([tmp_path / "a.tar"])


def test_shards_without_any_image_are_the_users_error(tmp_path: Path) -> None:
    with pytest.raises(PCDError, match="no images in the shards"):
        index_shards([_write(tmp_path / "a.tar", {"a.txt": b"a"})])
