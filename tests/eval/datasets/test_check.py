"""Everything that is wrong or odd about a set, a line for each kind."""

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.datasets.check import examine_set
from eval.datasets.facts import fit_detector, split_facts
from eval.datasets.folder import recognise
from eval.datasets.own import prepare_labelled
from eval.settings import CityscapesSet, ClassSet, CocoSet, VocSet
from pcd.errors import PCDError
from tests.eval.datasets.conftest import quiet, save_noise, write_voc

STANDARD = {
    "train_sizes": [640, 672, 704, 736, 768, 800], "test_size": 800, "max_size": 1333,
    "anchor_sizes": [32, 64, 128, 256, 512],
}  # fmt: skip


@pytest.mark.parametrize("kind", ["coco_set", "voc", "cityscapes", "classes"])
def test_a_sound_set_has_no_fault(kind: str, request: pytest.FixtureRequest) -> None:
    made: Any = request.getfixturevalue(kind)
    found = examine_set(made if kind == "coco_set" else recognise(made), 1, quiet)
    assert found.faults == []
    assert bool(found.facts) != bool(found.classes)


def test_every_kind_of_fault_is_told_and_counted(coco_set: CocoSet, own_coco: dict[str, Any]) -> None:
    for annotation in own_coco["annotations"]:
        annotation["bbox"] = [0, 0, 500, 5]
    own_coco["images"][1]["file_name"] = "gone.png"
    coco_set.train_annotations.write_text(json.dumps(own_coco))
    found = examine_set(coco_set, 1, quiet)
    assert [line.partition(": ")[2].partition(",")[0] for line in found.faults] == [
        f"image gone.png is not in {coco_set.train_images}; check the folder",
        "annotation 1 has the box [0.0",
    ]
    assert found.faults[1].endswith("(2 more like it)")
    assert found.facts == {}


def test_malformed_records_are_counted_by_kind(coco_set: CocoSet, own_coco: dict[str, Any]) -> None:
    for annotation in own_coco["annotations"]:
        del annotation["area"]
    own_coco["annotations"][2]["bbox"] = [1, 2]
    coco_set.val_annotations.write_text(json.dumps(own_coco))
    (first, second) = examine_set(coco_set, 1, quiet).faults
    assert first.endswith("annotation 1 has no area (1 more like it)")
    assert "annotation 3: bbox: list should have at least 4 items" in second


def test_categories_that_differ_are_named(coco_set: CocoSet, own_coco: dict[str, Any]) -> None:
    own_coco["categories"][1]["name"] = "horse"
    coco_set.val_annotations.write_text(json.dumps(own_coco))
    (line,) = examine_set(coco_set, 1, quiet).faults
    files = f"{coco_set.train_annotations} and {coco_set.val_annotations}"
    assert line == f'{files} list different categories: 7 is "dog" and "horse" in training and evaluation'


def _damage(coco_set: CocoSet, own_coco: dict[str, Any], name: str) -> None:
    match name:
        case "image":
            path = coco_set.val_images / "b.png"
            path.write_bytes(path.read_bytes()[:-200])
        case "crowds":
            for annotation in own_coco["annotations"]:
                annotation["iscrowd"] = 1
        case "categories":
            own_coco["categories"][1]["name"] = "horse"
        case "mask":
            own_coco["annotations"][2]["segmentation"]["counts"] = "0:n0"
        case "size":
            own_coco["images"][0]["width"] = 41
    coco_set.val_annotations.write_text(json.dumps(own_coco))


@pytest.mark.parametrize("name", ["image", "crowds", "categories", "mask", "size"])
def test_what_the_check_finds_ends_the_data_stage_in_the_same_words(
    coco_set: CocoSet, own_coco: dict[str, Any], tmp_path: Path, name: str
) -> None:
    _damage(coco_set, own_coco, name)
    (line,) = examine_set(coco_set, 1, quiet).faults
    with pytest.raises(PCDError, match=rf"\A{re.escape(line)}\Z"):
        prepare_labelled(coco_set, tmp_path, 1, quiet)


def test_images_of_classes_that_do_not_decode_are_counted(classes: Path) -> None:
    for name in ("val/n01/0.png", "train/n02/0.png", "train/n02/2.png"):
        (classes / name).write_bytes((classes / name).read_bytes()[:-30])
    found = examine_set(ClassSet(folder=classes), 1, quiet)
    assert [line.partition(" cannot be read (")[0] for line in found.faults] == [
        str(classes / "train/n02/0.png"), str(classes / "val/n01/0.png"),
    ]  # fmt: skip
    assert found.faults[0].endswith("(1 more like it)")


def test_a_part_of_cityscapes_is_a_warning(cityscapes: Path) -> None:
    found = examine_set(CityscapesSet(folder=cityscapes), 1, quiet)
    assert [line.partition(";")[0] for line in found.warnings[:2]] == [
        "train has 2 images, where Cityscapes has 2,975", "val has 2 images, where Cityscapes has 500",
    ]  # fmt: skip


@pytest.mark.parametrize("installed", [True, False])
def test_that_nobody_can_score_cityscapes_is_a_warning(
    cityscapes: Path, installed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not installed:
        monkeypatch.setitem(sys.modules, "cityscapesscripts", None)
    found = examine_set(CityscapesSet(folder=cityscapes), 1, quiet)
    assert any("pip install 'pcd-benchmark[cityscapes]'" in line for line in found.warnings) != installed


def test_lists_of_voc_that_are_not_the_protocols_are_a_warning(voc: Path) -> None:
    whole = examine_set(recognise(voc), 1, quiet)
    shutil.rmtree(voc / "VOC2012")
    half = examine_set(recognise(voc), 1, quiet)
    line = (
        "lists 2007_trainval to train, 2007_test to evaluate; VOC 07+12, and so the protocols voc_*, have "
        "2007_trainval and 2012_trainval to train, 2007_test to evaluate"
    )
    assert (line in whole.warnings, line in half.warnings) == (False, True)


ODD: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no area": (lambda c: c["annotations"][0].update(bbox=[5, 6, 0, 5]), "without area"),
    "doubled": (lambda c: c["annotations"].append({**c["annotations"][0], "id": 9}), "annotation 9 repeats another"),
    "elsewhere": (lambda c: c["annotations"][0].update(bbox=[20, 6, 10, 5]), r"and its mask fills \[5, 6, 10, 5\]"),
    "empty": (
        lambda c: c["annotations"][1].update(segmentation={"size": [40, 30], "counts": [1200]}),
        "annotation 2 has an empty mask",
    ),
    "image twice": (lambda c: c["images"][2].update(file_name="b.png"), "b.png stands there 2 times"),
    "unseen": (lambda c: c["annotations"][1].update(category_id=3), '"dog" has no object and cannot be learnt'),
}


@pytest.mark.parametrize("name", ODD)
def test_what_is_odd_is_a_warning(coco_set: CocoSet, own_coco: dict[str, Any], name: str) -> None:
    change, words = ODD[name]
    change(own_coco)
    coco_set.train_annotations.write_text(json.dumps(own_coco))
    found = examine_set(coco_set, 1, quiet)
    assert found.faults == []
    assert [line for line in found.warnings if re.search(words, line)], found.warnings


# Which set lies in a folder


def _coco_folder(root: Path, *names: str, images: tuple[str, str]) -> None:
    for name, place in zip(names, images, strict=True):
        save_noise(root / place / "1.png", 40, 30, 0)
        coco = {
            "images": [{"id": 1, "file_name": "1.png", "width": 40, "height": 30}],
            "annotations": [],
            "categories": [],
        }
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(json.dumps(coco))


COCO_FOLDERS = {
    "COCO": ("annotations/instances_train2017.json", "annotations/instances_val2017.json", "train2017", "val2017"),
    "Roboflow": ("train/_annotations.coco.json", "valid/_annotations.coco.json", "train", "valid"),
    "images": ("annotations/train.json", "annotations/val.json", "images/train", "images/val"),
    "one folder": ("train.json", "test.json", "images", "images"),
    "FiftyOne": ("train/labels.json", "validation/labels.json", "train/data", "validation/data"),
}


@pytest.mark.parametrize("name", COCO_FOLDERS)
def test_a_folder_in_cocos_format_is_recognised(tmp_path: Path, name: str) -> None:
    train, val, train_images, val_images = COCO_FOLDERS[name]
    _coco_folder(tmp_path, train, val, images=(train_images, val_images))
    (tmp_path / "annotations").mkdir(exist_ok=True)
    (tmp_path / "annotations" / "captions_train2017.json").write_text("{}") if name == "COCO" else None
    assert recognise(tmp_path) == CocoSet(
        train_images=tmp_path / train_images, train_annotations=tmp_path / train,
        val_images=tmp_path / val_images, val_annotations=tmp_path / val,
    )  # fmt: skip


def test_published_layouts_are_recognised(voc: Path, cityscapes: Path, classes: Path) -> None:
    assert recognise(voc) == recognise(voc / "VOC2007") == VocSet(folder=voc)
    assert recognise(cityscapes) == CityscapesSet(folder=cityscapes)
    assert recognise(classes) == ClassSet(folder=classes)


def test_one_year_of_voc_without_test_is_split_as_it_comes(tmp_path: Path) -> None:
    for part in ("train", "val"):
        write_voc(tmp_path, 2012, part, {f"2008_{part}": [("dog", (1, 1, 9, 9), 0)]})
    assert recognise(tmp_path) == VocSet(folder=tmp_path, train=("2012_train",), val="2012_val")


def test_a_folder_that_is_no_set_is_named_in_one_line(tmp_path: Path) -> None:
    for folder, words in ((tmp_path / "gone", "is no folder"), (tmp_path, "holds no labelled set that is known")):
        with pytest.raises(PCDError, match=rf"\A[^\n]*{words}[^\n]*\Z"):
            recognise(folder)
    _coco_folder(tmp_path, "train.json", images=("images",))
    with pytest.raises(PCDError, match="has no annotations with val or valid or validation or test in their name"):
        recognise(tmp_path)
    _coco_folder(tmp_path, "val.json", "val_v2.json", images=("images", "images"))
    with pytest.raises(PCDError, match=r"val\.json and val_v2\.json may both be the annotations of val"):
        recognise(tmp_path)


def test_images_that_lie_nowhere_are_named(tmp_path: Path) -> None:
    _coco_folder(tmp_path, "train.json", "val.json", images=("pictures", "pictures"))
    with pytest.raises(PCDError, match=r"names the image 1\.png, which lies in none of the folders"):
        recognise(tmp_path)


@pytest.mark.parametrize("name", ["{root}/images/1.png", "../images/1.png"])
def test_a_first_image_outside_the_folder_of_images_is_refused(tmp_path: Path, name: str) -> None:
    _coco_folder(tmp_path, "train.json", "val.json", images=("images", "images"))
    coco = json.loads((tmp_path / "train.json").read_text())
    coco["images"][0]["file_name"] = name.format(root=tmp_path)
    (tmp_path / "train.json").write_text(json.dumps(coco))
    with pytest.raises(PCDError, match=r"\A[^\n]*train\.json names the image \S+, which leaves its folder[^\n]*\Z"):
        recognise(tmp_path)


def test_a_first_image_with_a_name_too_long_is_told_in_one_line(tmp_path: Path) -> None:
    _coco_folder(tmp_path, "train.json", "val.json", images=("images", "images"))
    (tmp_path / "val.json").write_text((tmp_path / "val.json").read_text().replace("1.png", "n" * 5000))
    with pytest.raises(PCDError, match=r"\A[^\n]*val\.json names the image n{120}…[^\n]*\Z"):
        recognise(tmp_path)


@pytest.mark.parametrize("content", [b'{"images": [', b"[" * 100_000, b"\xef\xbb\xbf{}", '{"a": 1}'.encode("utf-16")])
def test_annotations_that_are_no_json_are_told_as_such(tmp_path: Path, content: bytes) -> None:
    _coco_folder(tmp_path, "train.json", "val.json", images=("images", "images"))
    (tmp_path / "train.json").write_bytes(content)
    with pytest.raises(PCDError, match=r"\A[^\n]*train\.json is not JSON \([^\n]*\Z"):
        recognise(tmp_path)


# Sizes and anchors


def objects(sides: list[float], size: tuple[int, int]) -> dict[str, Any]:
    """One image of `size` (width, height), and square objects."""
    width, height = size
    return {
        "images": [{"id": 1, "width": width, "height": height}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": [0, 0, s, s], "iscrowd": 0} for s in sides],
        "categories": [{"id": 1, "name": "thing"}],
    }


def test_sizes_and_anchors_that_fit_stay() -> None:
    coco_like = np.geomspace(10, 350, 50).tolist()
    assert fit_detector(objects(coco_like, (640, 480)), STANDARD) == {}


def test_small_images_are_enlarged_to_twice_their_size_at_most() -> None:
    fit = fit_detector(objects(np.geomspace(10, 200, 50).tolist(), (200, 200)), STANDARD)
    assert fit == {"train_sizes": [320, 352, 384], "test_size": 384, "max_size": 672}


def test_anchors_follow_objects_that_are_smaller() -> None:
    fit = fit_detector(objects([6.0] * 50 + [60.0] * 50, (800, 800)), STANDARD)
    assert fit == {"anchor_sizes": [12, 24, 48, 96, 192]}


def test_anchors_reach_objects_that_are_larger() -> None:
    fit = fit_detector(objects([20.0, 1300.0], (1333, 1333)), STANDARD | {"anchor_sizes": [16, 32, 64]})
    assert fit["anchor_sizes"][0] == 16
    assert 2 * fit["anchor_sizes"][-1] >= 0.95 * 1300 * 800 / 1333 - 2


def test_facts_count_crowds_apart(own_coco: dict[str, Any]) -> None:
    own_coco["annotations"][0]["iscrowd"] = 1
    facts = split_facts(own_coco)
    assert (facts.images, facts.objects, facts.crowds, facts.without_objects) == (3, 2, 1, 1)
    assert facts.by_category == {"cat": 1, "dog": 1}
    assert facts.sizes == pytest.approx([50**0.5] * 3)
