"""Shapes: a procedural instance-segmentation set that needs no download.

Each image is a textured background with zero to four textured shapes that may overlap, some of them tiny, and now and
then a crowd of small ones annotated as a whole. Masks are exact: what a later shape covers is cut out of the earlier
one's mask, and a box is the tight box of its mask. An image depends on (seed, split, index) alone, so any process draws
the same one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

__all__ = ["CLASS_NAMES", "Scene", "ShapeObject", "coco_annotation", "draw_object", "draw_scene"]

FloatImage = NDArray[np.float32]
Mask = NDArray[np.bool_]

MIN_VISIBLE_PIXELS: Final = 12
"""A shape that later ones cover down to fewer pixels than this is no longer annotated; nobody could name it."""


@dataclass(frozen=True, slots=True)
class ShapeObject:
    category: int
    """Index into CLASS_NAMES."""
    mask: Mask
    """(size, size), visible pixels only."""
    is_crowd: bool = False


@dataclass(frozen=True, slots=True)
class Scene:
    image: NDArray[np.uint8]
    """(size, size, 3), RGB."""
    objects: tuple[ShapeObject, ...]


# Every shape is a set of points (u, v) in its own frame, where its circumscribed circle has radius 1.


def _disk(u: FloatImage, v: FloatImage) -> Mask:
    return np.asarray(u**2 + v**2 <= 0.85)


def _square(u: FloatImage, v: FloatImage) -> Mask:
    return np.asarray(np.maximum(abs(u), abs(v)) <= 0.72)


def _triangle(u: FloatImage, v: FloatImage) -> Mask:
    return np.asarray(_half_planes(u, v, sides=3, distance=0.5) == 3)


def _star(u: FloatImage, v: FloatImage) -> Mask:
    # A pentagram is what at least four of its five edge lines hold; cos(72°) is the lines' distance from the centre.
    return np.asarray(_half_planes(u, v, sides=5, distance=0.38) >= 4)


def _ring(u: FloatImage, v: FloatImage) -> Mask:
    radius = u**2 + v**2
    return np.asarray((radius >= 0.3) & (radius <= 0.95))


def _cross(u: FloatImage, v: FloatImage) -> Mask:
    narrow, wide = np.minimum(abs(u), abs(v)), np.maximum(abs(u), abs(v))
    return np.asarray((narrow <= 0.27) & (wide <= 0.95))


def _half_planes(u: FloatImage, v: FloatImage, sides: int, distance: float) -> NDArray[np.int64]:
    angles = 2 * np.pi * np.arange(sides) / sides
    return np.asarray(np.sum([u * np.cos(a) + v * np.sin(a) <= distance for a in angles], axis=0))


_SHAPES: Final[dict[str, Callable[[FloatImage, FloatImage], Mask]]] = {
    "disk": _disk,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "ring": _ring,
    "cross": _cross,
}
CLASS_NAMES: Final = tuple(_SHAPES)

_OBJECTS: Final = 3
"""Stands where `draw_scene` has its split, so that no object's image is any scene's."""


def draw_scene(size: int, seed: int, split: int, index: int) -> Scene:
    """Draw image `index` of a split (0: pool, 1: train, 2: val), `size` x `size` pixels."""
    random = np.random.default_rng([seed, split, index])
    canvas = _texture(random, size, contrast=0.35)
    placed: list[ShapeObject] = []
    if random.random() < 0.04:
        placed = [_draw_crowd(random, canvas)]
    elif random.random() >= 0.05:  # one image in twenty shows nothing
        for _ in range(random.integers(1, 5)):
            placed = _cover(placed, _draw_shape(random, canvas, _radius(random, size)))
    canvas += random.normal(0, random.uniform(0.0, 0.04), canvas.shape).astype(np.float32)
    image = (np.clip(canvas, 0, 1) * 255).astype(np.uint8)
    return Scene(image, tuple(o for o in placed if o.is_crowd or o.mask.sum() >= MIN_VISIBLE_PIXELS))


def draw_object(size: int, seed: int, index: int) -> Scene:
    """Draw image `index` of a pool of single objects: one large shape about the middle, as photographs of things have.

    Such a pool is to scenes what ImageNet is to COCO.
    """
    random = np.random.default_rng([seed, _OBJECTS, index])
    canvas = _texture(random, size, contrast=0.35)
    centre = random.uniform(0.35 * size, 0.65 * size, 2)
    shape = _draw_shape(random, canvas, size * random.uniform(0.22, 0.42), centre=(centre[0], centre[1]))
    canvas += random.normal(0, random.uniform(0.0, 0.04), canvas.shape).astype(np.float32)
    return Scene((np.clip(canvas, 0, 1) * 255).astype(np.uint8), (shape,))


def coco_annotation(shape: ShapeObject, image_id: int, annotation_id: int) -> dict[str, Any]:
    """The COCO record of one object: compressed RLE, its area in pixels, its tight box as x, y, width, height."""
    rle = coco_mask.encode(np.asfortranarray(shape.mask.astype(np.uint8)))
    return {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": shape.category + 1,  # COCO counts categories from 1
        "segmentation": {"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")},
        "area": float(coco_mask.area(rle)),
        "bbox": [float(x) for x in coco_mask.toBbox(rle)],
        "iscrowd": int(shape.is_crowd),
    }


def _radius(random: np.random.Generator, size: int) -> float:
    """Pixels. One shape in eight is tiny, to give the small-object AP something to count."""
    low, high = (0.045, 0.10) if random.random() < 0.125 else (0.12, 0.28)
    return float(size * np.exp(random.uniform(np.log(low), np.log(high))))


def _draw_shape(
    random: np.random.Generator,
    canvas: FloatImage,
    radius: float,
    category: int | None = None,
    centre: tuple[float, float] | None = None,
) -> ShapeObject:
    size = canvas.shape[0]
    category = int(random.integers(len(CLASS_NAMES))) if category is None else category
    x, y = random.uniform(0.6 * radius, size - 0.6 * radius, 2) if centre is None else centre
    angle, stretch = random.uniform(0, 2 * np.pi), np.exp(random.uniform(-0.2, 0.2))
    rows, columns = np.mgrid[0:size, 0:size].astype(np.float32)
    dx, dy = (columns - x) / radius, (rows - y) / radius
    u = (dx * np.cos(angle) + dy * np.sin(angle)) * stretch
    v = (-dx * np.sin(angle) + dy * np.cos(angle)) / stretch
    mask = _SHAPES[CLASS_NAMES[category]](u.astype(np.float32), v.astype(np.float32))
    if mask.any():
        texture = _texture(random, size, contrast=0.45, away_from=canvas[mask].mean(axis=0))
        canvas[mask] = texture[mask]
    return ShapeObject(category, mask)


def _draw_crowd(random: np.random.Generator, canvas: FloatImage) -> ShapeObject:
    size = canvas.shape[0]
    category = int(random.integers(len(CLASS_NAMES)))
    middle, mask = random.uniform(0.3 * size, 0.7 * size, 2), np.zeros((size, size), np.bool_)
    for _ in range(random.integers(8, 14)):
        x, y = np.clip(random.normal(middle, 0.12 * size), 0, size - 1)
        mask |= _draw_shape(random, canvas, 0.05 * size, category, (x, y)).mask
    return ShapeObject(category, mask, is_crowd=True)


def _cover(placed: list[ShapeObject], new: ShapeObject) -> list[ShapeObject]:
    return [ShapeObject(o.category, o.mask & ~new.mask, o.is_crowd) for o in placed] + [new]


def _texture(
    random: np.random.Generator, size: int, contrast: float, away_from: NDArray[np.float32] | None = None
) -> FloatImage:
    """(size, size, 3) in 0 to 1: two colours mixed by a gradient, stripes, a checkerboard or smooth blobs."""
    first = _colour(random, away_from)
    second = np.clip(first + random.uniform(-contrast, contrast, 3), 0, 1)
    rows, columns = np.mgrid[0:size, 0:size].astype(np.float32) / size
    angle = random.uniform(0, 2 * np.pi)
    along, across = (
        rows * np.sin(angle) + columns * np.cos(angle),
        rows * np.cos(angle) - columns * np.sin(angle),
    )
    frequency = random.uniform(5, 14)
    kind = random.integers(4)
    if kind == 0:
        mix = (along - along.min()) / (along.max() - along.min())
    elif kind == 1:
        mix = (np.sin(2 * np.pi * frequency * along) > 0).astype(np.float32)
    elif kind == 2:
        mix = (np.sin(2 * np.pi * frequency * along) * np.sin(2 * np.pi * frequency * across) > 0).astype(np.float32)
    else:
        waves = [
            np.sin(2 * np.pi * (random.uniform(-4, 4) * rows + random.uniform(-4, 4) * columns + random.random()))
            for _ in range(4)
        ]
        mix = np.mean(waves, axis=0) * 0.5 + 0.5
    blended = first + np.asarray(mix)[..., None] * (second - first)  # (size, size, 3)
    return np.asarray(blended, np.float32)


def _colour(random: np.random.Generator, away_from: NDArray[np.float32] | None) -> NDArray[np.float64]:
    """A random colour, at least 0.35 away from a given one, so that no shape melts into its background."""
    while True:
        colour = random.uniform(0, 1, 3)
        if away_from is None or np.linalg.norm(colour - away_from) > 0.35:
            return colour
