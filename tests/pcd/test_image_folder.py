import json
from pathlib import Path

import pytest

from pcd.errors import PCDError
from pcd.image_folder import list_images, pool_folder


def _touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_missing_folder_is_the_users_error(tmp_path: Path) -> None:
    with pytest.raises(PCDError, match=r"image folder .*none does not exist"):
        list_images(tmp_path / "none")


def test_file_in_place_of_the_folder_is_the_users_error(tmp_path: Path) -> None:
    _touch(tmp_path, "a.jpg")
    with pytest.raises(PCDError, match="does not exist"):
        list_images(tmp_path / "a.jpg")


def test_folder_without_images_is_the_users_error(tmp_path: Path) -> None:
    _touch(tmp_path, "readme.txt")
    with pytest.raises(PCDError, match="no images in"):
        list_images(tmp_path)


def test_images_are_sorted(tmp_path: Path) -> None:
    _touch(tmp_path, "c.jpg", "a.jpg", "b.png")
    assert [p.name for p in list_images(tmp_path)] == ["a.jpg", "b.png", "c.jpg"]


def test_images_in_subfolders_are_found(tmp_path: Path) -> None:
    _touch(tmp_path, "n01/x.jpg", "n02/deep/y.jpg")
    assert [p.name for p in list_images(tmp_path)] == ["x.jpg", "y.jpg"]


def test_suffixes_count_in_either_case_and_other_files_do_not(tmp_path: Path) -> None:
    _touch(tmp_path, "a.JPEG", "b.Png", "c.webp", "d.bmp", "e.txt", "f.gif")
    assert [p.name for p in list_images(tmp_path)] == ["a.JPEG", "b.Png", "c.webp", "d.bmp"]


def test_folder_named_like_an_image_is_none(tmp_path: Path) -> None:
    _touch(tmp_path, "album.jpg/a.jpg")
    assert [p.name for p in list_images(tmp_path)] == ["a.jpg"]


def test_relative_pool_lies_in_the_data_folder(tmp_path: Path) -> None:
    (tmp_path / "data.json").write_text(json.dumps({"pool": "pool"}))
    assert pool_folder(tmp_path) == tmp_path / "pool"


def test_absolute_pool_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "data.json").write_text(json.dumps({"pool": "/elsewhere/images"}))
    assert pool_folder(tmp_path) == Path("/elsewhere/images")
