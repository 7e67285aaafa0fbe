import hashlib
import json
from pathlib import Path

import pytest

from pcd.errors import PCDError
from pcd.image_folder import list_images, pool_folder, scan_images, scan_pool


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


# ---- pools, which may be made of shards


def test_pool_is_its_images_where_it_has_some(tmp_path: Path) -> None:
    _touch(tmp_path, "n1/a.jpg", "archive.tar", "b.png")
    assert [p.name for p in scan_pool(tmp_path).paths] == ["b.png", "a.jpg"]


def test_pool_is_its_shards_where_it_has_no_images(tmp_path: Path) -> None:
    _touch(tmp_path, "2.tar", "deep/1.tar", "index.json", "3.tar.gz")
    assert [p.name for p in scan_pool(tmp_path).paths] == ["2.tar", "1.tar"]


@pytest.mark.parametrize(("pattern", "found"), [("a-*.tar", 2), ("a-00[0].tar", 1), ("b-000.tar", 1)])
def test_pattern_chooses_shards(tmp_path: Path, pattern: str, found: int) -> None:
    _touch(tmp_path, "a-000.tar", "a-001.tar", "b-000.tar")
    assert len(scan_pool(tmp_path / pattern)) == found


@pytest.mark.parametrize(
    ("pool", "message"),
    [("", "no images in"), ("none", "does not exist"), ("c-*.tar", "no shard fits"), ("c.tar", "no shard fits")],
)
def test_pool_without_images_and_shards_is_the_users_error(tmp_path: Path, pool: str, message: str) -> None:
    with pytest.raises(PCDError, match=message):
        scan_pool(tmp_path / pool)


def test_linked_folders_are_entered_once(tmp_path: Path) -> None:
    _touch(tmp_path / "all", "n01/a.jpg", "n02/b.jpg")
    (tmp_path / "subset").mkdir()
    (tmp_path / "subset" / "n02").symlink_to(tmp_path / "all" / "n02")
    (tmp_path / "subset" / "loop").symlink_to(tmp_path / "subset")
    assert [p.name for p in list_images(tmp_path / "subset")] == ["b.jpg"]


def test_places_of_this_machine_go_before_what_was_written_down(tmp_path: Path) -> None:
    (tmp_path / "data.json").write_text(json.dumps({"pool": "/elsewhere/images"}))
    assert pool_folder(tmp_path, {"pool": "/here/images"}) == Path("/here/images")


# ---- listings with lengths


@pytest.fixture
def images(tmp_path: Path) -> Path:
    _touch(tmp_path / "images", "a.png", "n01/b.png", "n01/c.png")
    return tmp_path / "images"


def test_a_fingerprint_is_that_of_paths_and_sizes(tmp_path: Path) -> None:
    (tmp_path / "n01").mkdir()
    (tmp_path / "n01" / "x.JPEG").write_bytes(b"123")
    (tmp_path / "b.png").write_bytes(b"12")
    assert scan_images(tmp_path).fingerprint() == hashlib.sha256(b"b.png\0002\nn01/x.JPEG\0003\n").hexdigest()


def test_a_listing_is_in_the_order_of_the_parts_of_its_paths(tmp_path: Path) -> None:
    _touch(tmp_path, "a/z.png", "a-b/y.png", "a.png", "b/x.png", "a/c/x.png")
    names = scan_images(tmp_path).names
    assert names == ["a/c/x.png", "a/z.png", "a-b/y.png", "a.png", "b/x.png"]
    assert names == sorted(names, key=lambda name: Path(name).parts)


def test_a_renamed_image_changes_the_fingerprint(images: Path) -> None:
    before = scan_images(images).fingerprint()
    (images / "a.png").rename(images / "z.png")
    assert scan_images(images).fingerprint() != before


def test_an_image_of_another_size_changes_the_fingerprint(images: Path) -> None:
    before = scan_images(images).fingerprint()
    (images / "a.png").write_bytes(b"x")
    assert scan_images(images).fingerprint() != before


def test_a_moved_folder_keeps_its_fingerprint(images: Path, tmp_path: Path) -> None:
    before = scan_images(images).fingerprint()
    assert scan_images(images.rename(tmp_path / "elsewhere")).fingerprint() == before


def test_a_file_that_is_no_image_leaves_the_fingerprint(images: Path) -> None:
    before = scan_images(images).fingerprint()
    (images / "notes.txt").write_text("x")
    assert scan_images(images).fingerprint() == before


def test_a_link_to_nothing_is_the_users_error(images: Path) -> None:
    (images / "lost.png").symlink_to(images / "none")
    with pytest.raises(PCDError, match=r"cannot read .*lost\.png \(No such file"):
        scan_images(images)


def test_a_pool_of_images_has_their_fingerprint(images: Path) -> None:
    assert scan_pool(images) == scan_images(images)


@pytest.mark.parametrize("pattern", ["", "*.tar"], ids=["folder", "pattern"])
def test_a_pool_of_shards_has_the_fingerprint_of_their_names_and_sizes(tmp_path: Path, pattern: str) -> None:
    for name, size in (("b", 3), ("a", 2)):
        (tmp_path / f"{name}.tar").write_bytes(b"x" * size)
    assert scan_pool(tmp_path / pattern).fingerprint() == hashlib.sha256(b"a.tar\0002\nb.tar\0003\n").hexdigest()
