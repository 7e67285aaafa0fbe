"""The first fault of a COCO file is named in one line, and nothing ends in a traceback."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eval.coco_check import check_coco
from pcd.errors import PCDError

Fault = Callable[[dict[str, Any]], object]


def check(coco: object, images: Path) -> dict[str, Any]:
    annotations = images.parent / "train.json"
    annotations.write_text(json.dumps(coco))
    return check_coco(annotations, images)


def annotation(**fields: object) -> Fault:
    """Change fields of the first annotation."""
    return lambda coco: coco["annotations"][0].update(fields)


def image(**fields: object) -> Fault:
    return lambda coco: coco["images"][0].update(fields)


def without(record: str, field: str) -> Fault:
    return lambda coco: coco[record][0].pop(field)


def replaced(record: str, value: object) -> Fault:
    """Put something else in the place of the first record of a list."""
    return lambda coco: coco[record].__setitem__(0, value)


def doubled(record: str) -> Fault:
    return lambda coco: coco[record].append(coco[record][0])


FAULTS: dict[str, tuple[Fault, str]] = {
    "no images": (lambda coco: coco.pop("images"), 'no list "images"'),
    "no annotations": (lambda coco: coco.pop("annotations"), 'no list "annotations"'),
    "no categories": (lambda coco: coco.pop("categories"), 'no list "categories"'),
    "images no list": (lambda coco: coco.update(images={}), 'no list "images"'),
    "images empty": (lambda coco: coco.update(images=[]), '"images" is empty'),
    "categories empty": (lambda coco: coco.update(categories=[]), '"categories" is empty'),
    "image id doubled": (doubled("images"), "two images have the id 1"),
    "annotation id doubled": (doubled("annotations"), "two annotations have the id 1"),
    "image id dangling": (annotation(image_id=77), "annotation 1 belongs to image 77"),
    "category unknown": (annotation(category_id=5), r"annotation 1 has category 5.*\[3, 7\]"),
    "box right of the image": (annotation(bbox=[35, 0, 10, 5]), r"annotation 1 has the box .*40 x 30"),
    "box below the image": (annotation(bbox=[0, 28, 5, 10]), r"annotation 1 has the box .*40 x 30"),
    "box left of the image": (annotation(bbox=[-5, 0, 10, 5]), "annotation 1 has the box"),
    "box above the image": (annotation(bbox=[0, -5, 10, 5]), "annotation 1 has the box"),
    "negative width": (annotation(bbox=[5, 5, -2, 5]), "annotation 1 has the box"),
    "negative height": (annotation(bbox=[5, 5, 2, -5]), "annotation 1 has the box"),
    "image file missing": (image(file_name="gone.png"), "gone.png is not in"),
    "image file name too long": (image(file_name="n" * 5000), r"image n{120}… \(5,000 characters\) is not in"),
    "image file name absolute": (image(file_name=str(Path(__file__))), "leaves its folder"),
    "image file name upwards": (image(file_name="../images/a.png"), r"image \.\./images/a\.png leaves its folder"),
    "to be ignored": (annotation(ignore=1), 'annotation 1 is marked "ignore"'),
    "RLE below zero": (annotation(segmentation={"size": [30, 40], "counts": [-5, 1205]}), "a run of -5 pixels"),
    "RLE cut short": (
        annotation(segmentation={"size": [30, 40], "counts": "0:n0"}),
        "of 40 pixels, and its image 1200",
    ),
    "RLE garbage": (annotation(segmentation={"size": [30, 40], "counts": "zzzz"}), "no run lengths"),
    "no bbox": (without("annotations", "bbox"), "annotation 1 has no bbox"),
    "no segmentation": (without("annotations", "segmentation"), "annotation 1 has no segmentation"),
    "no image id": (without("annotations", "image_id"), "annotation 1 has no image_id"),
    "no category id": (without("annotations", "category_id"), "annotation 1 has no category_id"),
    "no annotation id": (without("annotations", "id"), r"annotation number 0 has no id"),
    "no file name": (without("images", "file_name"), "image 1 has no file_name"),
    "no width": (without("images", "width"), "image 1 has no width"),
    "no height": (without("images", "height"), "image 1 has no height"),
}


MALFORMED: dict[str, Fault] = {
    "box of three numbers": annotation(bbox=[1, 2, 3]),
    "box of five numbers": annotation(bbox=[1, 2, 3, 4, 5]),
    "box of strings": annotation(bbox=["1", "2", "3", "4"]),
    "box with NaN": annotation(bbox=[float("nan"), 2, 3, 4]),
    "box with NaN width": annotation(bbox=[1, 2, float("nan"), 4]),
    "box with infinity": annotation(bbox=[1, 2, float("inf"), 4]),
    "box null": annotation(bbox=None),
    "box a mapping": annotation(bbox={"x": 1, "y": 2, "width": 3, "height": 4}),
    "image width null": image(width=None),
    "image width a string": image(width="40"),
    "image width zero": image(width=0),
    "image file name a number": image(file_name=5),
    "image id a list": image(id=[1]),
    "image a string": replaced("images", "a.png"),
    "image a number": replaced("images", 1),
    "annotation a string": replaced("annotations", "id"),
    "annotation null": replaced("annotations", None),
    "annotation id a list": annotation(id=[1]),
    "annotation image id a list": annotation(image_id=[1]),
    "annotation category a list": annotation(category_id=[3]),
    "category a string": replaced("categories", "cat"),
    "category without id": without("categories", "id"),
    "category without name": without("categories", "name"),
    "category id doubled": doubled("categories"),
    "segmentation null": annotation(segmentation=None),
    "segmentation empty, and others have one": annotation(segmentation=[]),
    "segmentation a flat polygon": annotation(segmentation=[5, 6, 15, 6, 15, 11]),
    "polygon with an odd number of coordinates": annotation(segmentation=[[5, 6, 15, 6, 15, 11, 5]]),
    "polygon of two points": annotation(segmentation=[[5, 6, 15, 11]]),
    "polygon of strings": annotation(segmentation=[["5", "6", "15", "6", "15", "11"]]),
    "RLE of another size": annotation(segmentation={"size": [40, 30], "counts": [1200]}),
    "RLE without counts": annotation(segmentation={"size": [30, 40]}),
    "RLE without size": annotation(segmentation={"counts": [1200]}),
    # Without these two the evaluation ends in a KeyError of pycocotools, hours after this check.
    "no area": without("annotations", "area"),
    "no iscrowd": without("annotations", "iscrowd"),
}


def test_a_faultless_file_is_returned_as_it_is(own_images: Path, own_coco: dict[str, Any]) -> None:
    assert check(own_coco, own_images) == own_coco


def test_a_file_without_annotations_passes(own_images: Path, own_coco: dict[str, Any]) -> None:
    own_coco["annotations"] = []
    assert check(own_coco, own_images)["annotations"] == []


def test_fields_that_nobody_reads_pass(own_images: Path, own_coco: dict[str, Any]) -> None:
    own_coco |= {"info": {"year": 2026}, "licenses": []}
    assert check(own_coco, own_images)["info"] == {"year": 2026}


def test_a_mark_that_says_nothing_passes(own_images: Path, own_coco: dict[str, Any]) -> None:
    annotation(ignore=0)(own_coco)
    assert check(own_coco, own_images) == own_coco


@pytest.mark.parametrize("box", [[-1, -1, 10, 5], [31, 26, 10, 5], [0, 0, 41, 31]])
def test_a_box_one_pixel_outside_is_a_rounding(own_images: Path, own_coco: dict[str, Any], box: list[float]) -> None:
    annotation(bbox=box)(own_coco)
    assert check(own_coco, own_images) == own_coco


def test_a_box_two_pixels_outside_is_a_fault(own_images: Path, own_coco: dict[str, Any]) -> None:
    annotation(bbox=[32, 0, 10, 5])(own_coco)
    with pytest.raises(PCDError, match="outside its image"):
        check(own_coco, own_images)


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named_in_one_line(own_images: Path, own_coco: dict[str, Any], name: str) -> None:
    fault, words = FAULTS[name]
    fault(own_coco)
    with pytest.raises(PCDError, match=rf"\A[^\n]*train\.json[^\n]*{words}[^\n]*\Z"):
        check(own_coco, own_images)


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_value_is_named_in_one_line(own_images: Path, own_coco: dict[str, Any], name: str) -> None:
    MALFORMED[name](own_coco)
    with pytest.raises(PCDError, match=r"\A[^\n]*train\.json[^\n]*\Z"):
        check(own_coco, own_images)
