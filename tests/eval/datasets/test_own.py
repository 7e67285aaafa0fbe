"""What the data stage makes of each layout."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from eval.coco_check import check_coco
from eval.data import DataSet, read_data_set, write_data_set
from eval.datasets.cityscapes import CITYSCAPES_CLASSES
from eval.datasets.own import prepare_labelled
from eval.settings import CityscapesSet, ClassSet, CocoSet, LabelledSet, VocSet
from pcd.errors import PCDError
from tests.eval.datasets.conftest import VOC_OBJECT, quiet, save_noise


def prepare(settings: LabelledSet, out: Path) -> tuple[DataSet, list[str]]:
    out.mkdir(exist_ok=True)
    return prepare_labelled(settings, out, 1, quiet)


def refusal(settings: LabelledSet, out: Path) -> str:
    with pytest.raises(PCDError) as caught:
        prepare(settings, out)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Pascal VOC


def test_voc_07_and_12_are_joined_and_their_boxes_begin_at_0(voc: Path, tmp_path: Path) -> None:
    data, warnings = prepare(VocSet(folder=voc), tmp_path / "out")
    assert warnings == [w for w in warnings if "has no object" in w]  # three of the twenty classes are there
    assert data.counts == {"pool": 0, "train": 3, "train_annotations": 3, "val": 3, "val_annotations": 4}
    assert (data.score, data.folder, len(data.categories)) == ("voc", voc, 20)
    train = json.loads(data.train.annotations.read_text())
    files = [image["file_name"] for image in train["images"]]
    assert files == [
        f"VOC{y}/JPEGImages/{n}.jpg" for y, n in ((2007, "000005"), (2007, "000007"), (2012, "2008_000002"))
    ]
    assert all((data.train.images / name).is_file() for name in files)
    boxes = np.array([a["bbox"] for a in train["annotations"]])
    assert boxes == pytest.approx(np.array([[0, 0, 50, 40], [4, 5, 5, 4], [1.5, 2.7, 18.5, 27.3]]))
    assert [a["difficult"] for a in train["annotations"]] == [0, 1, 0]


def test_what_is_written_passes_the_check_of_coco_files(voc: Path, cityscapes: Path, tmp_path: Path) -> None:
    for name, settings in (("voc", VocSet(folder=voc)), ("cityscapes", CityscapesSet(folder=cityscapes))):
        data, _ = prepare(settings, tmp_path / name)
        for split in (data.train, data.val):
            assert check_coco(split.annotations, split.images)["annotations"]


def test_a_size_that_voc_states_wrongly_is_taken_from_the_image(voc: Path, tmp_path: Path) -> None:
    xml = voc / "VOC2007/Annotations/000005.xml"
    xml.write_text(xml.read_text().replace("<width>50</width>", "<width>500</width>"))
    data, warnings = prepare(VocSet(folder=voc), tmp_path / "out")
    assert "1 annotation files state another size" in warnings[0]
    assert json.loads(data.train.annotations.read_text())["images"][0]["width"] == 50


def _drop(*parts: str) -> Callable[[Path], None]:
    def drop(folder: Path) -> None:
        for part in parts:
            place = folder / part
            shutil.rmtree(place) if place.is_dir() else place.unlink()

    return drop


def _write(part: str, text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / part).write_text(text) and None


def _cut(path: Path) -> None:
    """Damage the file where its header does not show it."""
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])


_BAD_BOX = VOC_OBJECT.format(name="dog", box=(1, 1, 90, 10), difficult=0)
_NO_CLASS = VOC_OBJECT.format(name="sofaa", box=(1, 1, 9, 10), difficult=0)
_ANNOTATION = "VOC2007/Annotations/000005.xml"

VOC_FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a year": (_drop("VOC2012"), r"VOC2012 does not exist; unpack the VOC archives there"),
    "a list": (_drop("VOC2007/ImageSets/Main/test.txt"), r"test\.txt cannot be read \(No such file or directory\)"),
    "an empty list": (_write("VOC2007/ImageSets/Main/test.txt", "\n"), r"test\.txt is empty"),
    "an annotation": (_drop(_ANNOTATION), r"000005\.xml does not exist; unpack the VOC archive again"),
    "an image": (_drop("VOC2007/JPEGImages/000005.jpg"), r"000005\.jpg cannot be read \(No such file or directory\)"),
    "a damaged image": (_write("VOC2007/JPEGImages/000005.jpg", "no JPEG"), "no image that Pillow knows"),
    "no XML": (_write(_ANNOTATION, "<annotation>"), r"000005\.xml is not XML"),
    "an encoding that nobody knows": (_write(_ANNOTATION, '<?xml version="1.0" encoding="foo"?><a/>'), "is not XML"),
    "a list of bytes": (
        lambda folder: (folder / "VOC2007/ImageSets/Main/test.txt").write_bytes(b"\xff\xfe\n"),
        r"test\.txt is no text in UTF-8",
    ),
    "half an image": (lambda folder: _cut(folder / "VOC2007/JPEGImages/000005.jpg"), "image file is truncated"),
    "an unknown class": (_write(_ANNOTATION, f"<a>{_NO_CLASS}</a>"), r'"sofaa" is no class of VOC; did you'),
    "a box outside": (_write(_ANNOTATION, f"<a>{_BAD_BOX}</a>"), r"\(90, 10\) of a dog lies outside .* 50 x 40"),
    "no box": (_write(_ANNOTATION, "<a><object><name>dog</name></object></a>"), "a dog has no whole box"),
}  # fmt: skip


@pytest.mark.parametrize("name", VOC_FAULTS)
def test_a_voc_folder_that_is_incomplete_is_named_in_one_line(voc: Path, tmp_path: Path, name: str) -> None:
    harm, words = VOC_FAULTS[name]
    harm(voc)
    with pytest.raises(PCDError, match=rf"\A[^\n]*{words}[^\n]*\Z"):
        prepare(VocSet(folder=voc), tmp_path / "out")


def test_one_year_in_place_of_the_devkit_is_named(voc: Path, tmp_path: Path) -> None:
    assert "is one year of VOC; give the folder above it" in refusal(VocSet(folder=voc / "VOC2007"), tmp_path / "out")


# Cityscapes


def test_cityscapes_instances_keep_their_pixels_and_groups_become_crowds(cityscapes: Path, tmp_path: Path) -> None:
    data, _ = prepare(CityscapesSet(folder=cityscapes), tmp_path / "out")
    assert (data.score, data.counts["train"], data.counts["val_annotations"]) == (
        "cityscapes",
        2,
        8,
    )
    assert data.categories == tuple(CITYSCAPES_CLASSES.values())
    coco = COCO(data.val.annotations)
    for image in coco.loadImgs(coco.getImgIds()):
        assert (data.val.images / image["file_name"]).is_file()
        ids = np.asarray(Image.open(cityscapes / image["truth"]))
        found = {26000: (26, 0), 26001: (26, 0), 24000: (24, 0), 26: (26, 1)}
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=image["id"]))
        for annotation in annotations:
            mask = coco.annToMask(annotation).astype(bool)
            (number,) = np.unique(ids[mask])
            assert found.pop(int(number)) == (annotation["category_id"], annotation["iscrowd"])
            assert mask.sum() == (ids == number).sum() == annotation["area"]
        assert found == {}


def test_the_categories_are_those_of_the_official_scripts() -> None:
    from cityscapesscripts.helpers.labels import labels

    official = {one.id: one.name for one in labels if one.hasInstances and not one.ignoreInEval}
    assert official == CITYSCAPES_CLASSES


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (_drop("gtFine/val"), "gtFine/val does not exist; unpack gtFine_trainvaltest.zip there"),
        (_drop("leftImg8bit/train/aachen"), r"no images in \S*leftImg8bit/train"),
        (_drop("gtFine/train/aachen/aachen_000001_000019_gtFine_instanceIds.png"), "has no annotations: "),
        (_write("gtFine/train/aachen/aachen_000001_000019_gtFine_instanceIds.png", "x"), "cannot be read"),
        (
            _drop("leftImg8bit/train/aachen/aachen_000001_000019_leftImg8bit.png"),
            r"aachen_000001_000019_gtFine_instanceIds\.png has no image \(1 such\): \S+ does not exist; unpack left",
        ),
        (
            lambda folder: _cut(folder / "leftImg8bit/val/munster/munster_000001_000019_leftImg8bit.png"),
            r"munster_000001_000019_leftImg8bit\.png cannot be read \(image file is truncated\)",
        ),
    ],
)
def test_a_cityscapes_folder_that_is_incomplete_is_named_in_one_line(
    cityscapes: Path, tmp_path: Path, harm: Callable[[Path], object], words: str
) -> None:
    shutil.copytree(cityscapes, tmp_path / "copy")
    harm(tmp_path / "copy")
    with pytest.raises(PCDError, match=rf"\A[^\n]*{words}[^\n]*\Z"):
        prepare(CityscapesSet(folder=tmp_path / "copy"), tmp_path / "out")


# Classes


def test_classes_are_numbered_by_name_and_each_image_has_its_own(classes: Path, tmp_path: Path) -> None:
    data, _ = prepare(ClassSet(folder=classes), tmp_path / "out")
    assert (data.categories, data.score, data.counts) == (("n01", "n02"), None, {"pool": 0, "train": 6, "val": 2})
    expected = [
        (classes / "train" / name / f"{i}.png", label) for label, name in enumerate(("n01", "n02")) for i in range(3)
    ]
    assert data.labelled("train") == expected


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (_drop("val"), "val does not exist; a set of classes has train/<class>/ and val/<class>/"),
        (_drop("val/n02"), r'the class "n02" has images in train alone \(1 such\)'),
        (_drop("val/n02", "train/n02"), "has 1 class; a classifier needs at least two"),
        (lambda folder: save_noise(folder / "val" / "loose.png", 8, 8, 0), r"loose\.png lies in no class"),
    ],
)
def test_a_folder_of_classes_that_is_incomplete_is_named_in_one_line(
    classes: Path, tmp_path: Path, harm: Callable[[Path], object], words: str
) -> None:
    harm(classes)
    with pytest.raises(PCDError, match=rf"\A[^\n]*{words}[^\n]*\Z"):
        prepare(ClassSet(folder=classes), tmp_path / "out")


# COCO's format


def test_a_faultless_coco_set_stays_where_it_is(coco_set: CocoSet, tmp_path: Path) -> None:
    data, warnings = prepare(coco_set, tmp_path / "out")
    assert (data.train.images, data.val.annotations, warnings) == (coco_set.train_images, coco_set.val_annotations, [])
    assert (data.score, data.folder, data.pool) == ("coco", None, None)
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("written", [{}, {"segmentation": []}])
def test_a_set_of_boxes_alone_is_taken(
    coco_set: CocoSet, own_coco: dict[str, Any], tmp_path: Path, written: dict[str, Any]
) -> None:
    """Without the key, or as Roboflow exports it."""
    own_coco["annotations"] = [
        {name: value for name, value in annotation.items() if name != "segmentation"} | written
        for annotation in own_coco["annotations"]
    ]
    for annotations in (coco_set.train_annotations, coco_set.val_annotations):
        annotations.write_text(json.dumps(own_coco))
    data, _ = prepare(coco_set, tmp_path / "out")
    assert data.counts["val_annotations"] == len(own_coco["annotations"])


def test_an_image_that_is_cut_off_is_named(coco_set: CocoSet, tmp_path: Path) -> None:
    _cut(coco_set.val_images / "b.png")
    assert f"{coco_set.val_images / 'b.png'} cannot be read (image file is truncated)" in refusal(
        coco_set, tmp_path / "out"
    )


def test_an_image_of_another_size_than_stated_is_named(coco_set: CocoSet, tmp_path: Path) -> None:
    save_noise(coco_set.val_images / "a.png", 30, 40, 5)
    told = refusal(coco_set, tmp_path / "out")
    assert told.endswith("image a.png is stated as 40 x 30 and has 30 x 40 pixels (turned by its EXIF record?)")


def test_an_image_that_its_exif_record_turns_counts_as_turned(coco_set: CocoSet, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for folder in (coco_set.train_images, coco_set.val_images):
        Image.new("RGB", (30, 40), (9, 9, 9)).save(folder / "a.png", "JPEG", exif=exif)
    prepare(coco_set, tmp_path / "out")


def test_an_image_that_both_splits_have_is_told(coco_set: CocoSet, tmp_path: Path) -> None:
    shutil.copy(coco_set.train_images / "b.png", coco_set.val_images / "c.png")
    _, warnings = prepare(coco_set, tmp_path / "out")
    assert warnings == ["the evaluation's c.png is the training's b.png, byte for byte"]


@pytest.mark.parametrize("kind", ["voc", "cityscapes", "classes"])
def test_a_set_is_read_where_it_lies_on_this_machine(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    from eval.datasets.layouts import places_of

    folder: Path = request.getfixturevalue(kind)
    make: Any = {"voc": VocSet, "cityscapes": CityscapesSet, "classes": ClassSet}[kind]
    data, _ = prepare(make(folder=folder), tmp_path / "out")
    write_data_set(tmp_path / "out", data)
    assert read_data_set(tmp_path / "out", places_of(make(folder=folder))) == data
    elsewhere = read_data_set(tmp_path / "out", places_of(make(folder="/elsewhere")))
    assert elsewhere.folder == Path("/elsewhere")
    assert elsewhere.train.images == Path("/elsewhere") / data.train.images.relative_to(folder)
    assert elsewhere.train.annotations == data.train.annotations
