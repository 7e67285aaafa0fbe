"""The data stage: draw the shapes set, or check a set of the user's own: `python -m eval.prepare_data SPEC`.

Writes data.json (see eval.data), which every later stage reads.
"""

import hashlib
import json
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from eval.coco_check import check_coco
from eval.data import DataSet, Split, write_data_set
from eval.settings import CocoData, DataStageSettings, ShapesData
from eval.shapes import CLASS_NAMES, coco_annotation, draw_scene
from pcd.errors import PCDError
from pcd.image_folder import scan_images, scan_pool
from pcd.image_sources import open_listing, save_index
from pcd.stage import Spec, Stopped, run_stage, write_json

__all__ = ["prepare_data"]

_SPLITS = ("pool", "train", "val")
_BLOCK = 50  # images that a worker draws before it reports


def prepare_data(spec: Spec) -> dict[str, Any]:
    settings = DataStageSettings.model_validate(spec.settings).data
    spec.metrics.drop_after(0)
    data = _draw_shapes(spec, settings) if isinstance(settings, ShapesData) else _check_own(spec, settings)
    write_data_set(spec.out, data)
    return {"name": data.name, "fingerprint": data.fingerprint, "categories": list(data.categories), **data.counts}


def _draw_shapes(spec: Spec, settings: ShapesData) -> DataSet:
    lengths = {"pool": settings.pool, "train": settings.train, "val": settings.val}
    blocks = [(split, b) for split in _SPLITS for b in _blocks(lengths[split])]
    coco: dict[str, dict[str, Any]] = {split: _empty_coco() for split in _SPLITS}
    total, done = sum(lengths.values()), 0
    for split in _SPLITS:
        (spec.out / split).mkdir(exist_ok=True)
    with ProcessPoolExecutor(spec.runtime["threads"]) as workers:
        draw = partial(_draw_block, spec.out, settings.size, settings.seed)
        for (split, block), (images, annotations) in zip(blocks, workers.map(draw, blocks), strict=True):
            coco[split]["images"] += images
            coco[split]["annotations"] += annotations
            done += len(block)
            spec.metrics.log(done, total)
            if spec.stop_requested:
                workers.shutdown(cancel_futures=True)
                raise Stopped
    for split in ("train", "val"):
        for number, annotation in enumerate(coco[split]["annotations"], start=1):
            annotation["id"] = number
        write_json(spec.out / f"{split}.json", coco[split])
    train, val = (Split(spec.out / s, spec.out / f"{s}.json") for s in ("train", "val"))
    pool, fingerprint = spec.out / "pool", scan_images(spec.out / "pool").fingerprint()
    return _summarise("shapes", pool, fingerprint, train, val, coco["train"], coco["val"], settings.pool)


def _blocks(images: int) -> Iterator[range]:
    for start in range(0, images, _BLOCK):
        yield range(start, min(start + _BLOCK, images))


def _draw_block(
    root: Path, size: int, seed: int, block: tuple[str, range]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Draw and save some images of a split; returns their COCO records, annotation ids still 0."""
    split, indices = block
    images, annotations = [], []
    for index in indices:
        scene = draw_scene(size, seed, _SPLITS.index(split), index)
        name = f"{index:06d}.jpg"
        Image.fromarray(scene.image).save(root / split / name, quality=95)
        images.append({"id": index + 1, "file_name": name, "width": size, "height": size})
        annotations += [coco_annotation(shape, index + 1, 0) for shape in scene.objects]
    return images, annotations


def _empty_coco() -> dict[str, Any]:
    categories = [{"id": i, "name": name} for i, name in enumerate(CLASS_NAMES, start=1)]
    return {"images": [], "annotations": [], "categories": categories}


def _check_own(spec: Spec, settings: CocoData) -> DataSet:
    spec.activity("listing the pool", 0, 3)
    listing = scan_pool(settings.pool)
    pool = open_listing(listing, spec.runtime["threads"])
    save_index(pool, listing, spec.out)
    spec.activity("checking the training set", 1, 3)
    train = check_coco(settings.train_annotations, settings.train_images)
    spec.activity("checking the evaluation set", 2, 3)
    val = check_coco(settings.val_annotations, settings.val_images)
    if train["categories"] != val["categories"]:
        raise PCDError(
            f"{settings.train_annotations} and {settings.val_annotations} list different categories; "
            "a detector trained on one cannot be evaluated on the other"
        )
    return _summarise(
        settings.train_annotations.stem,
        settings.pool,
        listing.fingerprint(),
        Split(settings.train_images, settings.train_annotations),
        Split(settings.val_images, settings.val_annotations),
        train,
        val,
        len(pool),
    )


def _summarise(
    name: str, pool: Path, fingerprint: str, train: Split, val: Split, train_coco: dict[str, Any],
    val_coco: dict[str, Any], images: int,
) -> DataSet:  # fmt: skip
    for labelled, coco in ((train, train_coco), (val, val_coco)):
        if all(annotation["iscrowd"] for annotation in coco["annotations"]):
            raise PCDError(
                f"{labelled.annotations} has no object that is not a crowd; nothing can be learnt or measured"
            )
    digest = hashlib.sha256(fingerprint.encode())
    for coco in (train_coco, val_coco):
        digest.update(json.dumps(coco, sort_keys=True).encode())
    counts = {"pool": images}
    for split, coco in (("train", train_coco), ("val", val_coco)):
        counts |= {split: len(coco["images"]), f"{split}_annotations": len(coco["annotations"])}
    categories = tuple(c["name"] for c in sorted(train_coco["categories"], key=lambda c: int(c["id"])))
    return DataSet(name, pool, train, val, categories, counts, digest.hexdigest())


if __name__ == "__main__":
    sys.exit(run_stage(prepare_data))
