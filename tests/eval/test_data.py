"""data.json, and what a data stage's key depends on."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from eval.data import (
    MISSING,
    DataSet,
    InputFiles,
    Split,
    input_files,
    listing_hash,
    pool_hash,
    read_data_set,
    write_data_set,
)
from eval.settings import CocoData, ShapesData


@pytest.fixture
def own_data(tmp_path: Path, own_images: Path, own_coco: dict[str, Any]) -> CocoData:
    for split in ("train", "val"):
        (tmp_path / f"{split}.json").write_text(json.dumps(own_coco))
    return CocoData(
        pool=own_images,
        train_images=own_images,
        train_annotations=tmp_path / "train.json",
        val_images=own_images,
        val_annotations=tmp_path / "val.json",
    )


def data_set(root: Path, pool: Path) -> DataSet:
    train, val = (Split(root / split, root / f"{split}.json") for split in ("train", "val"))
    return DataSet("shapes", pool, train, val, ("disk", "star"), {"pool": 4, "train": 2}, "f" * 64)


def test_a_data_set_is_read_as_it_was_written(tmp_path: Path) -> None:
    data = data_set(tmp_path, tmp_path / "pool")
    write_data_set(tmp_path, data)
    assert read_data_set(tmp_path) == data


def test_places_inside_the_folder_move_with_it(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    write_data_set(tmp_path / "old", data_set(tmp_path / "old", tmp_path / "old" / "pool"))
    (tmp_path / "old").rename(tmp_path / "new")
    assert read_data_set(tmp_path / "new") == data_set(tmp_path / "new", tmp_path / "new" / "pool")


def test_places_outside_the_folder_stay_where_they_are(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    write_data_set(tmp_path / "old", data_set(Path("/data/coco"), Path("/data/imagenet")))
    (tmp_path / "old").rename(tmp_path / "new")
    assert read_data_set(tmp_path / "new") == data_set(Path("/data/coco"), Path("/data/imagenet"))


def test_a_listing_hash_is_that_of_paths_and_sizes(tmp_path: Path) -> None:
    (tmp_path / "n01").mkdir()
    (tmp_path / "n01" / "x.JPEG").write_bytes(b"123")
    (tmp_path / "b.png").write_bytes(b"12")
    assert listing_hash(tmp_path) == hashlib.sha256(b"b.png\0002\nn01/x.JPEG\0003\n").hexdigest()


def test_a_renamed_image_changes_the_listing_hash(own_images: Path) -> None:
    before = listing_hash(own_images)
    (own_images / "a.png").rename(own_images / "z.png")
    assert listing_hash(own_images) != before


def test_an_image_of_another_size_changes_the_listing_hash(own_images: Path) -> None:
    before = listing_hash(own_images)
    with (own_images / "a.png").open("ab") as file:
        file.write(b"\0")
    assert listing_hash(own_images) != before


def test_a_moved_folder_keeps_its_listing_hash(own_images: Path, tmp_path: Path) -> None:
    before = listing_hash(own_images)
    assert listing_hash(own_images.rename(tmp_path / "elsewhere")) == before


def test_a_file_that_is_no_image_leaves_the_listing_hash(own_images: Path) -> None:
    before = listing_hash(own_images)
    (own_images / "notes.txt").write_text("x")
    assert listing_hash(own_images) == before


def test_shapes_read_nothing_from_outside() -> None:
    assert input_files(ShapesData()) == InputFiles({})


def test_own_data_is_known_by_its_annotations_and_its_folders(own_data: CocoData) -> None:
    files = input_files(own_data)
    assert files.hashes.keys() == {"train", "val", "pool", "train_images", "val_images"}
    assert files.missing == ()


@pytest.mark.parametrize("split", ["train", "val"])
def test_changed_annotations_change_the_hash_of_their_split_alone(own_data: CocoData, split: str) -> None:
    before = input_files(own_data).hashes
    path = own_data.train_annotations if split == "train" else own_data.val_annotations
    path.write_text(path.read_text() + "\n")
    after = input_files(own_data).hashes
    assert {name for name in before if before[name] != after[name]} == {split}


@pytest.mark.parametrize("name", ["pool", "train_images", "val_images"])
def test_a_missing_folder_is_named_in_one_line(own_data: CocoData, name: str, tmp_path: Path) -> None:
    files = input_files(own_data.model_copy(update={name: tmp_path / "gone"}))
    assert [line.startswith(f"image folder {tmp_path / 'gone'} does not exist; ") for line in files.missing] == [True]
    assert {known for known, sha256 in files.hashes.items() if sha256 == MISSING} == {name}


@pytest.mark.parametrize("name", ["train_annotations", "val_annotations"])
def test_a_missing_annotation_file_is_named_in_one_line(own_data: CocoData, name: str, tmp_path: Path) -> None:
    (line,) = input_files(own_data.model_copy(update={name: tmp_path / "gone.json"})).missing
    assert line == f"annotation file {tmp_path / 'gone.json'} does not exist; set data.* to where your data lies"


def test_all_that_is_missing_is_named_at_once(own_data: CocoData, tmp_path: Path) -> None:
    gone = own_data.model_copy(update={"pool": tmp_path / "gone", "val_annotations": tmp_path / "gone.json"})
    assert len(input_files(gone).missing) == 2


def test_a_folder_without_images_is_named_in_one_line(own_data: CocoData, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (line,) = input_files(own_data.model_copy(update={"pool": tmp_path / "empty"})).missing
    assert line.startswith(f"no images in {tmp_path / 'empty'}")


def test_a_pool_of_images_has_their_listing_hash(own_images: Path) -> None:
    assert pool_hash(own_images) == listing_hash(own_images)


@pytest.mark.parametrize("pattern", ["", "*.tar"], ids=["folder", "pattern"])
def test_a_pool_of_shards_has_the_hash_of_their_names_and_sizes(tmp_path: Path, pattern: str) -> None:
    for name, size in (("b", 3), ("a", 2)):
        (tmp_path / f"{name}.tar").write_bytes(b"x" * size)
    assert pool_hash(tmp_path / pattern) == hashlib.sha256(b"a.tar\0002\nb.tar\0003\n").hexdigest()
