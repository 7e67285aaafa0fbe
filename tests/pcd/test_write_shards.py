import subprocess
import sys
from pathlib import Path

import pytest

from pcd.errors import PCDError
from pcd.image_sources import open_images
from pcd.write_shards import write_shards
from tests.patience import PATIENCE


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(40):
        path = tmp_path / "images" / f"n{i // 10}" / f"a.{i}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"image {i}".encode() * 100)
    return tmp_path / "images"


def _contents(pool: Path) -> list[bytearray]:
    source = open_images(pool)
    return [source.read(i) for i in range(len(source))]


def test_shards_hold_every_image_as_it_is(folder: Path, tmp_path: Path) -> None:
    assert write_shards(folder, tmp_path / "shards", shard_bytes=8000) == 40
    assert len(list((tmp_path / "shards").glob("*.tar"))) > 1
    assert sorted(_contents(tmp_path / "shards")) == sorted(_contents(folder))


def test_images_of_a_subfolder_are_spread_over_the_shards(folder: Path, tmp_path: Path) -> None:
    write_shards(folder, tmp_path / "shards")
    places = [
        i
        for i, data in enumerate(_contents(tmp_path / "shards"))
        if data[:8] in (b"image 0i", b"image 1i", b"image 2i")
    ]
    assert places != [0, 1, 2]


def test_writing_twice_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    for name in ("one", "other"):
        write_shards(folder, tmp_path / name)
    assert (tmp_path / "one" / "000000.tar").read_bytes() == (tmp_path / "other" / "000000.tar").read_bytes()


def test_shards_are_not_written_over(folder: Path, tmp_path: Path) -> None:
    write_shards(folder, tmp_path / "shards")
    with pytest.raises(PCDError, match="has shards already"):
        write_shards(folder, tmp_path / "shards")


def test_command_writes_shards_and_says_how_many(
    folder: Path, tmp_path: Path, stage_environment: dict[str, str]
) -> None:
    command = [sys.executable, "-m", "pcd.write_shards", str(folder), str(tmp_path / "shards")]
    done = subprocess.run(command, env=stage_environment, capture_output=True, text=True, check=True, timeout=PATIENCE)
    assert done.stdout == f"40 images written to {tmp_path / 'shards'}\n"


@pytest.mark.slow
def test_command_on_an_empty_folder_exits_with_2_and_one_line(
    tmp_path: Path, stage_environment: dict[str, str]
) -> None:
    command = [sys.executable, "-m", "pcd.write_shards", str(tmp_path), str(tmp_path / "shards")]
    done = subprocess.run(command, env=stage_environment, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert done.returncode == 2
    assert done.stderr.startswith("error: no images in")
    assert done.stderr.count("\n") == 1
