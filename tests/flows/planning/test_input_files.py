"""What keys depend on outside the store: by content, each looked at once."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from eval.settings import CocoData, ShapesData
from flows.planning.input_files import MISSING, InputFiles, data_files, file_hash, image_counts
from flows.planning.plan import make_plan
from flows.profiles import load_profile


def _coco() -> dict[str, Any]:
    return {"images": [], "annotations": [], "categories": []}


@pytest.fixture
def own_data(tmp_path: Path, pcd_home: Path) -> CocoData:
    for folder, images in (("pool/n1", 3), ("pool/n2", 2), ("train", 2), ("val", 1)):
        (tmp_path / folder).mkdir(parents=True)
        for i in range(images):
            (tmp_path / folder / f"{i}.png").write_bytes(b"x" * (i + 1))
    for split in ("train", "val"):
        (tmp_path / f"{split}.json").write_text(json.dumps(_coco()))
    return CocoData(
        pool=tmp_path / "pool",
        train_images=tmp_path / "train",
        train_annotations=tmp_path / "train.json",
        val_images=tmp_path / "val",
        val_annotations=tmp_path / "val.json",
    )


def test_shapes_read_nothing_from_outside() -> None:
    assert data_files(ShapesData()) == InputFiles({})


def test_own_data_is_known_by_its_annotations_and_its_folders(own_data: CocoData) -> None:
    files = data_files(own_data)
    assert files.hashes.keys() == {"train", "val", "pool", "train_images", "val_images"}
    assert files.missing == ()


@pytest.mark.parametrize("split", ["train", "val"])
def test_changed_annotations_change_the_hash_of_their_split_alone(own_data: CocoData, split: str) -> None:
    before = data_files(own_data).hashes
    path = own_data.train_annotations if split == "train" else own_data.val_annotations
    path.write_text(path.read_text() + "\n")
    after = data_files(own_data).hashes
    assert {name for name in before if before[name] != after[name]} == {split}


@pytest.mark.parametrize("name", ["pool", "train_images", "val_images"])
def test_a_missing_folder_is_named_in_one_line(own_data: CocoData, name: str, tmp_path: Path) -> None:
    files = data_files(own_data.model_copy(update={name: tmp_path / "gone"}))
    assert [line.startswith(f"image folder {tmp_path / 'gone'} does not exist; ") for line in files.missing] == [True]
    assert {known for known, sha256 in files.hashes.items() if sha256 == MISSING} == {name}


@pytest.mark.parametrize("name", ["train_annotations", "val_annotations"])
def test_a_missing_annotation_file_is_named_in_one_line(own_data: CocoData, name: str, tmp_path: Path) -> None:
    (line,) = data_files(own_data.model_copy(update={name: tmp_path / "gone.json"})).missing
    assert line == f"annotation file {tmp_path / 'gone.json'} does not exist; set data.* to where your data lies"


def test_all_that_is_missing_is_named_at_once(own_data: CocoData, tmp_path: Path) -> None:
    gone = own_data.model_copy(update={"pool": tmp_path / "gone", "val_annotations": tmp_path / "gone.json"})
    assert len(data_files(gone).missing) == 2


def test_a_folder_without_images_is_named_in_one_line(own_data: CocoData, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (line,) = data_files(own_data.model_copy(update={"pool": tmp_path / "empty"})).missing
    assert line.startswith(f"no images in {tmp_path / 'empty'}")


def _long_ago(*paths: Path) -> None:
    for path in paths:
        os.utime(path, (1e9, 1e9))


@pytest.mark.parametrize("name", ["pool", "train_images"])
def test_a_folder_that_stays_as_it_is_is_listed_once(
    own_data: CocoData, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder: Path = getattr(own_data, name)
    _long_ago(folder, *(path for path in folder.iterdir() if path.is_dir()))
    before = data_files(own_data)
    opened: list[object] = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: opened.append(path) or scandir(path))
    assert data_files(own_data) == before
    assert not [path for path in opened if Path(str(path)).is_relative_to(folder)]
    assert [path for path in opened if Path(str(path)) == own_data.val_images]  # changed a moment ago


def test_an_image_that_is_added_is_seen(own_data: CocoData) -> None:
    before = data_files(own_data).hashes
    (own_data.pool / "n2" / "new.png").write_bytes(b"x")
    assert data_files(own_data).hashes["pool"] != before["pool"]


def test_an_image_overwritten_in_its_place_is_seen(own_data: CocoData) -> None:
    before = data_files(own_data).hashes
    (own_data.val_images / "0.png").write_bytes(b"longer than it was")
    assert data_files(own_data).hashes["val_images"] != before["val_images"]


def test_images_are_counted(own_data: CocoData, tmp_path: Path) -> None:
    assert image_counts(own_data) == {"pool": 5, "train": 2, "val": 1}
    assert image_counts(own_data.model_copy(update={"pool": tmp_path / "none"}))["pool"] is None


@pytest.fixture
def large(tmp_path: Path, pcd_home: Path) -> Path:
    path = tmp_path / "large.json"
    path.write_bytes(b"x" * 2_000_000)
    _long_ago(path)
    return path


def test_a_large_file_is_hashed_once_and_its_hash_is_kept(large: Path, pcd_home: Path) -> None:
    sha256 = file_hash(large)
    kept = json.loads((pcd_home / "hashes.json").read_text())
    assert kept == {str(large): {"bytes": 2_000_000, "mtime_ns": 10**18, "sha256": sha256}}
    kept[str(large)]["sha256"] = "as kept"
    (pcd_home / "hashes.json").write_text(json.dumps(kept))
    assert file_hash(large) == "as kept"


@pytest.mark.parametrize("change", ["content", "time"])
def test_a_changed_file_is_hashed_anew(large: Path, pcd_home: Path, change: str) -> None:
    sha256 = file_hash(large)
    kept = json.loads((pcd_home / "hashes.json").read_text())
    kept[str(large)]["sha256"] = "as kept"
    (pcd_home / "hashes.json").write_text(json.dumps(kept))
    if change == "content":
        with large.open("ab") as file:
            file.write(b"y")
    else:
        os.utime(large, (2e9, 2e9))
    assert (file_hash(large) == sha256) is (change == "time")
    assert file_hash(large) != "as kept"


def test_the_hash_of_a_file_written_a_moment_ago_is_not_kept(large: Path, pcd_home: Path) -> None:
    os.utime(large, (time.time() + 60, time.time() + 60))
    file_hash(large)
    assert not (pcd_home / "hashes.json").exists()


@pytest.mark.parametrize("damaged", ["", "[]", '{"%s": 1}'])
def test_a_damaged_file_of_hashes_is_passed_over(large: Path, pcd_home: Path, damaged: str) -> None:
    pcd_home.mkdir()
    (pcd_home / "hashes.json").write_text(damaged.replace("%s", str(large)))
    assert len(file_hash(large)) == 64


def test_a_home_that_cannot_be_written_costs_no_more_than_time(
    large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("PCD_HOME", str(tmp_path / "file" / "home"))
    assert len(file_hash(large)) == 64


def test_data_that_moved_change_no_key_and_are_read_where_they_lie(own_data: CocoData, tmp_path: Path) -> None:
    def plan_of(data: CocoData) -> Any:
        changes = [f"data={json.dumps(data.model_dump(mode='json'))}"]
        return make_plan(load_profile("demo", changes))

    before = plan_of(own_data)
    (tmp_path / "moved").mkdir()
    for name in ("pool", "train", "val", "train.json", "val.json"):
        (tmp_path / name).rename(tmp_path / "moved" / name)
    moved = {name: tmp_path / "moved" / path.name for name, path in own_data if isinstance(path, Path)}
    after = plan_of(own_data.model_copy(update=moved))
    assert [stage.key for stage in after.stages] == [stage.key for stage in before.stages]
    assert not [stage.id for stage in after.stages if str(tmp_path) in json.dumps(stage.parts)]
    for stage in after.stages:
        reads = stage.kind in ("pretrain", "finetune", "aggregate")
        places = (stage.runtime or {}).get("data_places")
        assert places == ({name: str(path) for name, path in moved.items()} if reads else None)
