"""The data stage, as the process that the benchmark starts."""

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from eval.coco_check import check_coco
from eval.data import read_data_set
from eval.shapes import CLASS_NAMES, draw_object
from pcd.image_sources import open_pool
from pcd.write_shards import write_shards

Run = Callable[..., "CompletedProcess[str]"]
RunOwn = Callable[..., tuple["CompletedProcess[str]", Path]]


@pytest.fixture(scope="module")
def second_set(draw_set: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same settings as `shapes_set`, drawn by two processes, and moved since."""
    folder = draw_set(tmp_path_factory.mktemp("second") / "drawn", threads=2)
    return folder.rename(folder.with_name("moved"))


@pytest.fixture(scope="module")
def run_own(run_module: Run, new_spec: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> RunOwn:
    """Run the data stage on own data: the images, and the train and val annotations; the process and its folder."""

    def run(
        images: Path, train: dict[str, Any], val: dict[str, Any], pool: Path | None = None
    ) -> tuple["CompletedProcess[str]", Path]:
        root = tmp_path_factory.mktemp("own")
        settings: dict[str, Any] = {"kind": "coco", "pool": str(pool or images)}
        for split, coco in (("train", train), ("val", val)):
            (root / f"{split}.json").write_text(json.dumps(coco))
            settings |= {f"{split}_images": str(images), f"{split}_annotations": str(root / f"{split}.json")}
        return run_module("eval.prepare_data", new_spec(root / "out", {"data": settings})), root / "out"

    return run


def files_of(folder: Path) -> dict[str, bytes]:
    skipped = {"spec.json", "result.json", "metrics.jsonl"}  # times and threads stand in these
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in skipped
    }


def test_the_splits_have_as_many_images_as_asked(shapes_set: Path) -> None:
    counts = {split: len(list((shapes_set / split).glob("*.jpg"))) for split in ("pool", "train", "val")}
    assert counts == {"pool": 4, "train": 16, "val": 8}


def test_the_counts_of_data_json_are_those_of_the_files(shapes_set: Path) -> None:
    annotations = {s: len(json.loads((shapes_set / f"{s}.json").read_text())["annotations"]) for s in ("train", "val")}
    assert read_data_set(shapes_set).counts == {
        "pool": 4,
        "train": 16,
        "val": 8,
        "train_annotations": annotations["train"],
        "val_annotations": annotations["val"],
    }


def test_a_moved_set_is_read_where_it_lies(second_set: Path) -> None:
    data = read_data_set(second_set)
    assert data.val.annotations == second_set / "val.json"
    assert [p.exists() for p in (data.pool, data.train.images, data.val.images, data.val.annotations)] == [True] * 4


def test_categories_are_named_in_order(shapes_set: Path) -> None:
    assert read_data_set(shapes_set).categories == CLASS_NAMES


@pytest.mark.parametrize("split", ["train", "val"])
def test_the_drawn_set_passes_the_check_of_own_data(shapes_set: Path, split: str) -> None:
    assert check_coco(shapes_set / f"{split}.json", shapes_set / split)["annotations"]


@pytest.mark.parametrize("split", ["train", "val"])
def test_pycocotools_reads_masks_that_agree_with_boxes_and_areas(shapes_set: Path, split: str) -> None:
    coco = COCO(shapes_set / f"{split}.json")
    for annotation in coco.loadAnns(coco.getAnnIds()):
        mask = coco.annToMask(annotation)
        rows, columns = np.nonzero(mask)
        box = [columns.min(), rows.min(), columns.max() - columns.min() + 1, rows.max() - rows.min() + 1]
        assert annotation["bbox"] == box
        assert annotation["area"] == mask.sum()


@pytest.mark.parametrize("split", ["train", "val"])
def test_annotation_ids_count_from_one(shapes_set: Path, split: str) -> None:
    annotations = json.loads((shapes_set / f"{split}.json").read_text())["annotations"]
    assert [a["id"] for a in annotations] == list(range(1, len(annotations) + 1))


def test_another_run_with_other_threads_writes_the_same_bytes(shapes_set: Path, second_set: Path) -> None:
    assert files_of(second_set) == files_of(shapes_set)


def test_another_run_with_other_threads_has_the_same_fingerprint(shapes_set: Path, second_set: Path) -> None:
    results = [json.loads((folder / "result.json").read_text()) for folder in (shapes_set, second_set)]
    assert results[0]["fingerprint"] == results[1]["fingerprint"] == read_data_set(shapes_set).fingerprint


def test_another_seed_has_another_fingerprint(shapes_set: Path, draw_set: Callable[..., Path], tmp_path: Path) -> None:
    other = draw_set(tmp_path / "seed1", seed=1)
    assert read_data_set(other).fingerprint != read_data_set(shapes_set).fingerprint


def test_a_pool_of_objects_shows_one_each_and_leaves_the_labelled_images_as_they_are(
    shapes_set: Path, draw_set: Callable[..., Path], tmp_path: Path
) -> None:
    objects = draw_set(tmp_path / "objects", pool_of="objects")
    pool = np.asarray(Image.open(objects / "pool" / "000003.jpg"))
    away = [abs(pool - draw_object(pool.shape[0], 0, index).image.astype(float)).mean() for index in range(10)]
    assert np.argmin(away) == 3  # not the same to the bit: JPEG
    assert files_of(objects / "val") == files_of(shapes_set / "val")
    assert read_data_set(objects).fingerprint != read_data_set(shapes_set).fingerprint


def test_progress_ends_at_the_number_of_images(shapes_set: Path) -> None:
    last = json.loads((shapes_set / "metrics.jsonl").read_text().splitlines()[-1])
    assert (last["step"], last["total"]) == (28, 28)


def test_own_data_is_taken_as_it_is_where_it_is(run_own: RunOwn, own_images: Path, own_coco: dict[str, Any]) -> None:
    own_coco["categories"].reverse()
    _, out = run_own(own_images, own_coco, own_coco)
    data = read_data_set(out)
    assert data.counts == {"pool": 3, "train": 3, "train_annotations": 3, "val": 3, "val_annotations": 3}
    assert data.categories == ("cat", "dog")  # in the order of their ids
    assert (data.pool, data.train.images, data.val.images) == (own_images, own_images, own_images)
    assert not list(out.rglob("*.png"))


def test_train_and_val_with_different_categories_are_refused_in_one_line(
    run_own: RunOwn, own_images: Path, own_coco: dict[str, Any]
) -> None:
    val = own_coco | {"categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "horse"}]}
    done, out = run_own(own_images, own_coco, val)
    assert done.returncode == 2
    assert (out / "error.txt").read_text().count("list different categories") == 1
    assert "\n" not in (out / "error.txt").read_text()


def test_a_faulty_set_leaves_no_result(run_own: RunOwn, own_images: Path, own_coco: dict[str, Any]) -> None:
    faulty = own_coco | {"images": own_coco["images"][:2]}
    _, out = run_own(own_images, faulty, own_coco)
    assert not (out / "result.json").exists()
    assert not (out / "data.json").exists()


@pytest.mark.parametrize("annotations", ["none", "crowds only"])
def test_a_training_set_without_objects_is_refused_before_anything_is_trained(
    run_own: RunOwn, own_images: Path, own_coco: dict[str, Any], annotations: str
) -> None:
    crowds = [a | {"iscrowd": 1} for a in own_coco["annotations"]]
    train = own_coco | {"annotations": [] if annotations == "none" else crowds}
    done, _ = run_own(own_images, train, own_coco)
    assert done.returncode == 2


def test_a_pool_of_shards_or_of_images_is_indexed_for_the_stages_behind(
    run_own: RunOwn, own_images: Path, own_coco: dict[str, Any], tmp_path: Path
) -> None:
    write_shards(own_images, tmp_path / "shards")
    for pool in (tmp_path / "shards", tmp_path / "shards" / "*.tar", own_images):
        done, out = run_own(own_images, own_coco, own_coco, pool)
        assert done.returncode == 0, done.stderr
        assert read_data_set(out).counts["pool"] == 3
        assert (out / "pool_index.npz").exists()
        source = open_pool(out)
        assert sorted(source.read(i) for i in range(3)) == sorted(path.read_bytes() for path in own_images.iterdir())
