"""Cityscapes' instances as COCO JSON, from the instanceIds images that its official evaluation reads.

Detectron2 0.6 draws its training masks from the polygons instead; the two differ by the pixels on their edges. A region
of several objects (`cargroup`, an id below 1000) becomes a crowd, as there.
"""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from eval.datasets.layouts import cityscapes_pairs
from eval.datasets.pictures import Tick, picture_size
from pcd.errors import PCDError

__all__ = ["CITYSCAPES_CLASSES", "read_cityscapes"]

CITYSCAPES_CLASSES: Final = {
    24: "person", 25: "rider", 26: "car", 27: "truck", 28: "bus", 31: "train", 32: "motorcycle", 33: "bicycle",
}  # fmt: skip
"""Those with instances: Cityscapes' label id, which the category's id is here, to its name."""

_BLOCK: Final = 16  # images that a worker reads before it reports


def read_cityscapes(folder: Path, split: str, threads: int, tick: Tick) -> dict[str, Any]:
    """A split as a COCO record with compressed RLE masks; file names are relative to leftImg8bit/<split>.

    Each image also carries `truth`, its instanceIds image relative to `folder`, for the official evaluation.

    Raises:
        PCDError: a folder or file is missing or unreadable, or an image and its annotations differ in size.
    """
    pairs = cityscapes_pairs(folder, split)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    blocks = [pairs[start : start + _BLOCK] for start in range(0, len(pairs), _BLOCK)]
    with ProcessPoolExecutor(min(threads, len(blocks))) as workers:
        try:
            for block in workers.map(partial(_read_block, folder), blocks):
                for image, objects in block:
                    images.append({"id": len(images) + 1, **image})
                    for one in objects:
                        annotations.append({"id": len(annotations) + 1, "image_id": len(images), **one})
                tick(f"{split} masks", len(images), len(pairs))
        except BaseException:
            workers.shutdown(cancel_futures=True)
            raise
    return {
        "info": {"description": f"Cityscapes {split}"},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for number, name in CITYSCAPES_CLASSES.items()],
    }


def _read_block(folder: Path, pairs: list[tuple[Path, Path]]) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    return [_read_pair(folder, image, truth) for image, truth in pairs]


def _read_pair(folder: Path, image: Path, truth: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    try:
        with Image.open(truth) as file:
            ids = np.asarray(file).astype(np.int32)  # (height, width)
    except (OSError, SyntaxError, ValueError) as error:
        raise PCDError(f"{truth} cannot be read ({error}); unpack gtFine_trainvaltest.zip again") from None
    width, height = picture_size(image)
    if ids.shape != (height, width):
        sizes = f"{ids.shape} for an image of {(height, width)}"
        raise PCDError(f"{truth} has another size than its image: {sizes} (height, width); unpack both archives again")
    record = {
        "file_name": f"{image.parent.name}/{image.name}", "width": width, "height": height,
        "truth": truth.relative_to(folder).as_posix(),
    }  # fmt: skip
    return record, list(_objects(ids))


def _objects(ids: "np.ndarray[Any, np.dtype[np.int32]]") -> Iterator[dict[str, Any]]:
    from pycocotools import mask as coco_mask

    for number in np.unique(ids).tolist():
        label = number if number < 1000 else number // 1000
        if label in CITYSCAPES_CLASSES:
            rle = coco_mask.encode(np.asfortranarray(ids == number, dtype=np.uint8))
            yield {
                "category_id": label,
                "segmentation": {"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")},
                "area": float(coco_mask.area(rle)),
                "bbox": [float(x) for x in coco_mask.toBbox(rle)],
                "iscrowd": int(number < 1000),
            }
