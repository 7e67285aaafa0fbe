"""The data stage: draw the shapes set, or check sets of the user's own: `python -m eval.prepare_data SPEC`.

Writes data.json (see eval.data), which every later stage reads.
"""

import hashlib
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from eval.coco_check import why_nothing_to_learn
from eval.data import DataSet, Split, write_data_set
from eval.datasets.own import describe_labelled, prepare_labelled
from eval.settings import CocoData, DataStageSettings, LabelledSet, PoolData, ShapesData
from eval.shapes import CLASS_NAMES, Scene, coco_annotation, draw_object, draw_scene
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
    if isinstance(settings, PoolData):
        return _take_pool(spec, settings)
    data, warnings = (
        (_draw_shapes(spec, settings), []) if isinstance(settings, ShapesData) else _check_own(spec, settings)
    )
    for line in warnings:
        print(f"warning: {line}", flush=True)
    write_data_set(spec.out, data)
    result = {"name": data.name, "fingerprint": data.fingerprint, "categories": list(data.categories), **data.counts}
    return result | ({"warnings": warnings} if warnings else {})


def _draw_shapes(spec: Spec, settings: ShapesData) -> DataSet:
    lengths = {"pool": settings.pool, "train": settings.train, "val": settings.val}
    blocks = [(split, b) for split in _SPLITS for b in _blocks(lengths[split])]
    coco: dict[str, dict[str, Any]] = {split: _empty_coco() for split in _SPLITS}
    total, done = sum(lengths.values()), 0
    for split in _SPLITS:
        (spec.out / split).mkdir(exist_ok=True)
    with ProcessPoolExecutor(spec.runtime["threads"]) as workers:
        draw = partial(_draw_block, spec.out, settings)
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
        if line := why_nothing_to_learn(coco[split], f"the shapes' {split}"):
            raise PCDError(f"{line}; raise data.{split}, or take another data.seed")
        write_json(spec.out / f"{split}.json", coco[split])
    splits = {s: Split(spec.out / s, spec.out / f"{s}.json") for s in ("train", "val")}
    data = describe_labelled("shapes", splits, {s: coco[s] for s in splits}, "coco", None)
    whole = scan_images(spec.out / "pool").fingerprint() + data.fingerprint
    return replace(
        data, pool=spec.out / "pool", counts=data.counts | {"pool": settings.pool},
        fingerprint=hashlib.sha256(whole.encode()).hexdigest(),
    )  # fmt: skip


def _blocks(images: int) -> Iterator[range]:
    for start in range(0, images, _BLOCK):
        yield range(start, min(start + _BLOCK, images))


def _draw_block(
    root: Path, settings: ShapesData, block: tuple[str, range]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Draw and save some images of a split; returns their COCO records, annotation ids still 0."""
    split, indices = block
    images, annotations = [], []
    for index in indices:
        scene = _draw(settings, split, index)
        name = f"{index:06d}.jpg"
        Image.fromarray(scene.image).save(root / split / name, quality=95)
        images.append({"id": index + 1, "file_name": name, "width": settings.size, "height": settings.size})
        annotations += [coco_annotation(shape, index + 1, 0) for shape in scene.objects]
    return images, annotations


def _draw(settings: ShapesData, split: str, index: int) -> Scene:
    if split == "pool" and settings.pool_of == "objects":
        return draw_object(settings.size, settings.seed, index)
    return draw_scene(settings.size, settings.seed, _SPLITS.index(split), index)


def _empty_coco() -> dict[str, Any]:
    categories = [{"id": i, "name": name} for i, name in enumerate(CLASS_NAMES, start=1)]
    return {"images": [], "annotations": [], "categories": categories}


def _take_pool(spec: Spec, settings: PoolData) -> dict[str, Any]:
    images, fingerprint = _index_pool(spec, settings.pool)
    counts = {"pool": images, "train": 0, "val": 0}
    record = {"name": "pool", "pool": str(settings.pool), "counts": counts, "fingerprint": fingerprint}
    write_json(spec.out / "data.json", record)
    return {"name": "pool", "fingerprint": fingerprint, **counts}


def _check_own(spec: Spec, settings: CocoData | LabelledSet) -> tuple[DataSet, list[str]]:
    def tick(phase: str, done: int, total: int) -> None:
        spec.activity(phase, done, total)
        if spec.stop_requested:
            raise Stopped

    pool = _index_pool(spec, settings.pool) if isinstance(settings, CocoData) else None
    data, warnings = prepare_labelled(settings, spec.out, spec.runtime["threads"], tick)
    if isinstance(settings, CocoData) and pool:
        images, fingerprint = pool
        whole = hashlib.sha256((fingerprint + data.fingerprint).encode()).hexdigest()
        data = replace(data, pool=settings.pool, counts=data.counts | {"pool": images}, fingerprint=whole)
    return data, warnings


def _index_pool(spec: Spec, pool: Path) -> tuple[int, str]:
    """Leave the pool's index; the number of its images, and SHA-256 of its listing."""
    spec.activity("listing the pool", 0, 1)
    listing = scan_pool(pool)
    source = open_listing(listing, spec.runtime["threads"])
    save_index(source, listing, spec.out)
    return len(source), listing.fingerprint()


if __name__ == "__main__":
    sys.exit(run_stage(prepare_data))
