"""Miniature sets in the layouts that the real ones unpack to."""

import json
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pytest
from PIL import Image

from eval.settings import CocoSet

VOC_XML = """<annotation><filename>{name}.jpg</filename><size><width>{width}</width><height>{height}</height>
<depth>3</depth></size>{objects}</annotation>"""
VOC_OBJECT = """<object><name>{name}</name><pose>Left</pose><truncated>0</truncated><difficult>{difficult}</difficult>
<bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox>
<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part></object>"""

VocObject = tuple[str, tuple[float, float, float, float], int]
"""Class, box from pixel 1 on with the last pixel in it, difficult."""


def save_noise(path: Path, width: int, height: int, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def write_voc(folder: Path, year: int, part: str, images: dict[str, list[VocObject]]) -> None:
    """One list of a year, of noise images of 50 x 40 pixels."""
    root = folder / f"VOC{year}"
    for place in ("Annotations", "ImageSets/Main"):
        (root / place).mkdir(parents=True, exist_ok=True)
    for name, objects in images.items():
        save_noise(root / "JPEGImages" / f"{name}.jpg", 50, 40, crc32(f"{year}{name}".encode()))
        told = "".join(VOC_OBJECT.format(name=n, box=box, difficult=difficult) for n, box, difficult in objects)
        xml = VOC_XML.format(name=name, width=50, height=40, objects=told)
        (root / "Annotations" / f"{name}.xml").write_text(xml)
    (root / "ImageSets" / "Main" / f"{part}.txt").write_text("".join(f"{name}\n" for name in images))


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """VOC 07+12: two and one training images, three evaluation images."""
    folder = tmp_path / "VOCdevkit"
    write_voc(
        folder, 2007, "trainval", {"000005": [("chair", (1, 1, 50, 40), 0)], "000007": [("car", (5, 6, 9, 9), 1)]}
    )
    write_voc(folder, 2012, "trainval", {"2008_000002": [("tvmonitor", (2.5, 3.7, 20, 30), 0)]})
    write_voc(folder, 2007, "test", {
        "000001": [("dog", (11, 11, 30, 30), 0), ("dog", (31, 1, 50, 20), 1), ("person", (1, 1, 20, 40), 0)],
        "000002": [("dog", (1, 1, 20, 20), 0)],
        "000003": [],
    })  # fmt: skip
    return folder


@pytest.fixture(scope="session")
def cityscapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two training images of one city, two evaluation images of another, 64 x 32 pixels.

    Each has a car, a second car that it touches, a person, a group of cars, road (7) and void (0).
    """
    folder = tmp_path_factory.mktemp("cityscapes")
    for split, city in (("train", "aachen"), ("val", "munster")):
        for number in range(2):
            name = f"{city}_{number:06d}_000019"
            save_noise(folder / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png", 64, 32, number + len(city))
            ids = np.full((32, 64), 7, np.uint16)
            ids[:4] = 0
            ids[6:20, 2:22] = 26000
            ids[6:20, 22:40] = 26001
            ids[10:30, 44 + number : 54] = 24000
            ids[24:32, 10:34] = 26
            truth = folder / "gtFine" / split / city / f"{name}_gtFine_instanceIds.png"
            truth.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(ids).save(truth)
    return folder


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    """Two classes of three training images and one evaluation image each."""
    folder = tmp_path / "classes"
    for split, images in (("train", 3), ("val", 1)):
        for label, name in enumerate(("n01", "n02")):
            for number in range(images):
                save_noise(folder / split / name / f"{number}.png", 8, 8, 10 * label + number)
    return folder


@pytest.fixture
def coco_set(tmp_path: Path, own_images: Path, own_coco: dict[str, Any]) -> CocoSet:
    """`own_images` and `own_coco` as train, and the same annotations on other noise as val."""
    for number, image in enumerate(own_coco["images"]):
        save_noise(tmp_path / "val" / image["file_name"], image["width"], image["height"], 100 + number)
    for split in ("train", "val"):
        (tmp_path / f"{split}.json").write_text(json.dumps(own_coco))
    return CocoSet(
        train_images=own_images, train_annotations=tmp_path / "train.json",
        val_images=tmp_path / "val", val_annotations=tmp_path / "val.json",
    )  # fmt: skip


def quiet(phase: str, done: int, total: int) -> None:
    """Progress that nobody watches."""
