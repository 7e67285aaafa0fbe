"""The procedural set: the same images everywhere, and in them what a detector has to learn."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from eval.shapes import CLASS_NAMES, MIN_VISIBLE_PIXELS, Scene, coco_annotation, draw_object, draw_scene

SIZE = 96
HASH_PROGRAM = """
import hashlib
from eval.shapes import draw_scene
scene = draw_scene(64, 3, 1, 7)
digest = hashlib.sha256(scene.image.tobytes())
for shape in scene.objects:
    digest.update(shape.mask.tobytes())
print(digest.hexdigest())
"""


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [draw_scene(SIZE, seed=0, split=1, index=i) for i in range(200)]


def tight_box(mask: NDArray[np.bool_]) -> list[float]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    x, y = columns[0], rows[0]
    return [float(x), float(y), float(columns[-1] - x + 1), float(rows[-1] - y + 1)]


def boxes_intersect(a: list[float], b: list[float]) -> bool:
    return a[0] < b[0] + b[2] and b[0] < a[0] + a[2] and a[1] < b[1] + b[3] and b[1] < a[1] + a[3]


def test_another_process_draws_the_same_scene() -> None:
    scene = draw_scene(64, 3, 1, 7)
    digest = hashlib.sha256(scene.image.tobytes())
    for shape in scene.objects:
        digest.update(shape.mask.tobytes())
    theirs = subprocess.run([sys.executable, "-c", HASH_PROGRAM], capture_output=True, text=True, check=True)
    assert theirs.stdout.strip() == digest.hexdigest()


def test_a_scene_does_not_depend_on_those_drawn_before() -> None:
    first = draw_scene(64, 0, 0, 5).image
    draw_scene(64, 0, 0, 4)
    np.random.default_rng(1).random(100)
    assert (draw_scene(64, 0, 0, 5).image == first).all()


@pytest.mark.parametrize("other", [(1, 1, 3), (0, 2, 3), (0, 1, 4)], ids=["seed", "split", "index"])
def test_another_seed_split_or_index_draws_another_image(other: tuple[int, int, int]) -> None:
    assert (draw_scene(64, 0, 1, 3).image != draw_scene(64, *other).image).mean() > 0.5


def test_an_object_is_one_large_shape_about_the_middle() -> None:
    for index in range(50):
        scene = draw_object(SIZE, 0, index)
        (shape,) = scene.objects
        x, y, width, height = tight_box(shape.mask)
        assert shape.mask.mean() > 0.02
        assert 0.15 * SIZE < x + width / 2 < 0.85 * SIZE
        assert 0.15 * SIZE < y + height / 2 < 0.85 * SIZE
    assert {draw_object(SIZE, 0, index).objects[0].category for index in range(50)} == set(range(len(CLASS_NAMES)))


def test_an_object_is_the_same_at_each_drawing_and_in_no_scene() -> None:
    image = draw_object(SIZE, 0, 7).image
    assert (image == draw_object(SIZE, 0, 7).image).all()
    assert all((image != draw_scene(SIZE, 0, split, 7).image).mean() > 0.5 for split in range(3))


def test_a_scene_is_an_rgb_image_with_masks_of_its_size() -> None:
    scene = draw_scene(48, 0, 1, 2)
    assert scene.image.shape == (48, 48, 3)
    assert scene.image.dtype == np.uint8
    assert [o.mask.shape for o in scene.objects] == [(48, 48)] * len(scene.objects)


def test_every_class_occurs(scenes: list[Scene]) -> None:
    assert {o.category for s in scenes for o in s.objects} == set(range(len(CLASS_NAMES)))


def test_no_class_is_rare(scenes: list[Scene]) -> None:
    counts = np.bincount([o.category for s in scenes for o in s.objects], minlength=len(CLASS_NAMES))
    assert counts.min() > 0.08 * counts.sum()


def test_some_images_show_nothing(scenes: list[Scene]) -> None:
    assert 2 <= sum(not s.objects for s in scenes) <= 30


def test_some_images_show_a_crowd(scenes: list[Scene]) -> None:
    assert 2 <= sum(any(o.is_crowd for o in s.objects) for s in scenes) <= 30


def test_a_crowd_stands_alone_in_its_image(scenes: list[Scene]) -> None:
    assert {len(s.objects) for s in scenes if any(o.is_crowd for o in s.objects)} == {1}


def test_some_boxes_of_one_scene_intersect(scenes: list[Scene]) -> None:
    boxes = [[tight_box(o.mask) for o in s.objects] for s in scenes]
    assert sum(any(boxes_intersect(a, b) for i, a in enumerate(of) for b in of[:i]) for of in boxes) > 20


def test_later_shapes_cut_holes_into_earlier_ones(scenes: list[Scene]) -> None:
    disks = [o.mask for s in scenes for o in s.objects if CLASS_NAMES[o.category] == "disk" and not o.is_crowd]
    filled = [mask.sum() / (tight_box(mask)[2] * tight_box(mask)[3]) for mask in disks]
    # A whole disk fills pi / 4 = 0.785 of its box.
    assert min(filled) < 0.6
    assert np.median(filled) > 0.75


def test_some_objects_are_small_for_coco_and_some_are_tiny(scenes: list[Scene]) -> None:
    areas = np.array([o.mask.sum() for s in scenes for o in s.objects])
    assert (areas < 32**2).mean() > 0.2
    assert (areas < 10**2).sum() > 10


def test_some_objects_are_medium_for_coco(scenes: list[Scene]) -> None:
    assert sum(o.mask.sum() > 32**2 for s in scenes for o in s.objects) > 20


def test_no_object_is_below_the_smallest_visible_size(scenes: list[Scene]) -> None:
    assert min(o.mask.sum() for s in scenes for o in s.objects) >= MIN_VISIBLE_PIXELS


def test_masks_of_one_scene_are_disjoint(scenes: list[Scene]) -> None:
    most = [np.sum([o.mask for o in s.objects], axis=0).max() for s in scenes if s.objects]
    assert max(most) == 1


def test_an_object_does_not_melt_into_its_background(scenes: list[Scene]) -> None:
    def contrast(scene: Scene, mask: NDArray[np.bool_]) -> float:
        grown = mask.copy()
        for axis in (0, 1):
            grown |= np.roll(mask, 2, axis) | np.roll(mask, -2, axis)
        around = grown & ~np.any([o.mask for o in scene.objects], axis=0)
        return float(np.linalg.norm(scene.image[mask].mean(0) - scene.image[around].mean(0))) if around.any() else 255

    contrasts = [contrast(s, o.mask) for s in scenes for o in s.objects if not o.is_crowd]
    assert np.quantile(contrasts, 0.1) > 30


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(seed=st.integers(0, 2**31 - 1), split=st.integers(0, 2), index=st.integers(0, 10**6), size=st.integers(32, 100))
def test_an_annotation_has_the_tight_box_and_the_pixels_of_its_mask(
    seed: int, split: int, index: int, size: int
) -> None:
    for shape in draw_scene(size, seed, split, index).objects:
        record = coco_annotation(shape, 5, 9)
        decoded = coco_mask.decode(record["segmentation"])
        assert (decoded == shape.mask).all()
        assert record["area"] == shape.mask.sum()
        assert record["bbox"] == tight_box(shape.mask)


def test_an_annotation_carries_its_ids_and_the_category_counted_from_one(scenes: list[Scene]) -> None:
    shape = next(o for s in scenes for o in s.objects if o.category == 2)
    record = coco_annotation(shape, image_id=5, annotation_id=9)
    assert (record["id"], record["image_id"], record["category_id"]) == (9, 5, 3)


def test_a_crowd_is_annotated_as_one(scenes: list[Scene]) -> None:
    shapes = [o for s in scenes for o in s.objects]
    assert [coco_annotation(o, 1, 1)["iscrowd"] for o in shapes] == [int(o.is_crowd) for o in shapes]
