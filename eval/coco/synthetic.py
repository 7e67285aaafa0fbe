"""Made-up objects and detections in COCO format, for measuring and for comparing evaluations."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

__all__ = ["make_detections", "make_objects"]

_VERTICES = 16
_SIZES = ((8, 32), (32, 96), (96, 240))
"""Pixels of a side: small, medium and large, about as often as in val2017: 41 %, 34 %, 25 %."""


def make_objects(images: int, objects: int, categories: int, seed: int, crowds: float = 0.012) -> dict[str, Any]:
    """A COCO record of `objects` star-shaped objects on images of 640 x 480 pixels.

    Args:
        crowds: share of the objects that are crowds (446 of 36,781 in val2017).
    """
    random = np.random.default_rng(seed)
    annotations = []
    for i, (image, category) in enumerate(
        zip(random.integers(1, images + 1, objects), _category(random, categories, objects), strict=True)
    ):
        low, high = _SIZES[random.choice(3, p=(0.41, 0.34, 0.25))]
        width, height = random.uniform(low, high, 2)
        box = np.array([random.uniform(0, 640 - width), random.uniform(0, 480 - height), width, height])
        shape = _outline(random, box)
        annotations.append({
            "id": i + 1, "image_id": int(image), "category_id": int(category), "iscrowd": int(random.random() < crowds),
            "bbox": _bounds(shape), "segmentation": _rle(shape), "area": _area(shape),
        })  # fmt: skip
    return {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": 640, "height": 480} for i in range(1, images + 1)],
        "annotations": annotations,
        "categories": [{"id": i, "name": f"category {i}"} for i in range(1, categories + 1)],
    }


def make_detections(coco: dict[str, Any], each: int, seed: int, decimals: int | None = None) -> list[dict[str, Any]]:
    """COCO result records, `each` an image: objects found more or less well, twice, as another category, and nothing.

    Args:
        decimals: scores are rounded to so many, for ties; None: not rounded.
    """
    random = np.random.default_rng(seed)
    by_image: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in coco["images"]}
    for annotation in coco["annotations"]:
        by_image[annotation["image_id"]].append(annotation)
    categories = len(coco["categories"])
    found = []
    for image_id, objects in by_image.items():
        chosen = []
        for target in objects:
            for _ in range(int(random.choice(4, p=(0.15, 0.5, 0.25, 0.1)))):
                box = _moved(random, np.array(target["bbox"]))
                wrong = random.random() < 0.15
                category = int(_category(random, categories, 1)[0]) if wrong else target["category_id"]
                chosen.append((box, category, random.beta(4, 2)))
        for _ in range(each - len(chosen)):
            width, height = random.uniform(8, 200, 2)
            box = np.array([random.uniform(0, 640 - width), random.uniform(0, 480 - height), width, height])
            chosen.append((box, int(_category(random, categories, 1)[0]), random.beta(1, 8)))
        for box, category, score in chosen[:each]:
            shape = _outline(random, box)
            rounded = float(score) if decimals is None else round(float(score), decimals)
            found.append({
                "image_id": image_id, "category_id": category, "score": rounded,
                "bbox": _bounds(shape), "segmentation": _rle(shape),
            })  # fmt: skip
    return found


def _category(random: np.random.Generator, categories: int, many: int) -> NDArray[np.int64]:
    """Frequent and rare ones, as in COCO."""
    return 1 + np.floor(categories * random.random(many) ** 1.6).astype(np.int64)


def _moved(random: np.random.Generator, box: NDArray[np.float64]) -> NDArray[np.float64]:
    sides = box[2:] * np.exp(random.normal(0, 0.1, 2))
    centre = box[:2] + box[2:] * (0.5 + random.normal(0, 0.06, 2))
    return np.concatenate([centre - sides / 2, sides])


def _outline(random: np.random.Generator, box: NDArray[np.float64]) -> NDArray[np.float64]:
    """(V, 2) corners of a wobbly ellipse in `box`, (x, y, width, height), within the image."""
    angles = np.linspace(0, 2 * np.pi, _VERTICES, endpoint=False)
    radii = random.uniform(0.85, 1, _VERTICES)
    centre, half = box[:2] + box[2:] / 2, np.abs(box[2:]) / 2
    corners = centre + half * radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return np.asarray(np.clip(corners, 0, (640, 480)))


def _bounds(corners: NDArray[np.float64]) -> list[float]:
    low, high = corners.min(axis=0), corners.max(axis=0)
    return [*low.tolist(), *(high - low).tolist()]


def _area(corners: NDArray[np.float64]) -> float:
    x, y = corners.T
    return float(abs(x @ np.roll(y, 1) - y @ np.roll(x, 1)) / 2)


def _rle(corners: NDArray[np.float64]) -> dict[str, Any]:
    rle = coco_mask.frPyObjects([corners.ravel().tolist()], 480, 640)[0]
    return {"size": rle["size"], "counts": rle["counts"].decode()}
