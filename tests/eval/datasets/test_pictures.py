"""Sizes and damage of image files."""

from pathlib import Path

import pytest
from PIL import Image

from eval.datasets.pictures import picture_size, picture_sizes
from pcd.errors import PCDError
from tests.eval.datasets.conftest import quiet, save_noise


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.bmp", "a.webp"])
def test_a_size_is_that_of_the_whole_picture(tmp_path: Path, name: str) -> None:
    save_noise(tmp_path / name, 61, 45, 0)
    assert picture_size(tmp_path / name) == (61, 45)


@pytest.mark.parametrize("size", [(7, 7), (5, 40), (1, 1)])
def test_a_picture_may_be_small(tmp_path: Path, size: tuple[int, int]) -> None:
    save_noise(tmp_path / "a.jpg", *size, 0)
    assert picture_size(tmp_path / "a.jpg") == size


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_a_picture_that_its_exif_record_turns_counts_as_turned(tmp_path: Path, name: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 40), (9, 9, 9)).save(tmp_path / name, exif=exif)
    assert picture_size(tmp_path / name) == (40, 30)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.bmp", "a.webp"])
@pytest.mark.parametrize("kept", [0.4, 0.95])
def test_a_picture_that_is_cut_off_is_named_in_one_line(tmp_path: Path, name: str, kept: float) -> None:
    save_noise(tmp_path / name, 64, 48, 0)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: round(kept * len(whole))])
    with pytest.raises(PCDError, match=rf"\A[^\n]*{name} cannot be read \([^\n]+\); mend it[^\n]*\Z"):
        picture_size(tmp_path / name)


def test_every_picture_has_an_answer_in_its_turn(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(205)]
    for number, path in enumerate(paths):
        Image.new("L", (number + 1, 2)).save(path)
    paths[150].write_text("no image")
    told: list[tuple[str, int, int]] = []
    found = list(picture_sizes(paths, 2, lambda *progress: told.append(progress), "images"))
    assert [path for path, _ in found] == paths
    assert isinstance(found[150][1], PCDError)
    assert [size for _, size in found if not isinstance(size, PCDError)] == [(n + 1, 2) for n in range(205) if n != 150]
    assert told == [("images", done, 205) for done in (0, 100, 200, 205)]


def test_no_picture_is_no_fault() -> None:
    assert list(picture_sizes([], 1, quiet, "images")) == []
