"""data.json, and where the data lie that it names."""

from pathlib import Path

from eval.data import DataSet, Split, read_data_set, write_data_set


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


def test_data_that_lie_elsewhere_on_this_machine_are_read_there(tmp_path: Path) -> None:
    write_data_set(tmp_path, data_set(Path("/data/coco"), Path("/data/imagenet")))
    names = ("pool", "train_images", "train_annotations", "val_images", "val_annotations")
    data = read_data_set(tmp_path, {name: f"/disk/{name}" for name in names})
    assert (data.pool, data.train, data.val) == (
        Path("/disk/pool"),
        Split(Path("/disk/train_images"), Path("/disk/train_annotations")),
        Split(Path("/disk/val_images"), Path("/disk/val_annotations")),
    )
