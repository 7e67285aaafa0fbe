"""COCO's figures by faster-coco-eval: those of pycocotools, in compiled code.

The arithmetic is pycocotools' to the last bit on what the tests compare (tests/eval/coco/test_score.py).
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from faster_coco_eval import mask as coco_mask
from numpy.typing import NDArray

from eval.coco.results import TASKS

__all__ = ["FIGURES", "coco_figures", "evaluate"]

FIGURES: Final = (
    *("AP", "AP50", "AP75", "APs", "APm", "APl"),
    *("AR1", "AR10", "AR100", "ARs", "ARm", "ARl"),
)
"""In the order of pycocotools' `stats`: AP over IoU 0.5 to 0.95, at 0.5 and 0.75, by size; AR by detections an image,
by size. Size classes are below 32², 96² pixels, and above."""


def coco_figures(
    coco: dict[str, Any], detections: Sequence[dict[str, Any]], tasks: Sequence[str] = TASKS, threads: int = 1
) -> dict[str, float | None]:
    """`bbox/AP`, `segm/AR100`, `bbox/AP-disk` (per category), … in per cent.

    None where the set has no object that a figure could count, such as of a size class; 0 where nothing was detected.

    Args:
        coco: a COCO record; objects need `segmentation` where `segm` is among the tasks.
        detections: COCO result records (eval.coco.results.check_results).
        threads: processor cores for the overlaps of masks.
    """
    figures: dict[str, float | None] = {}
    for task in tasks:
        evaluated = evaluate(coco, detections, task, threads)
        figures |= {f"{task}/{name}": _per_cent(x) for name, x in zip(FIGURES, evaluated.stats, strict=True)}
        precision = evaluated.eval["precision"]  # IoU, recall, category, size class, detections an image
        names = {category["id"]: category["name"] for category in coco["categories"]}
        for place, category in enumerate(evaluated.params.catIds):
            of_category = precision[:, :, place, 0, -1]
            exists = (of_category > -1).any()
            figures[f"{task}/AP-{names[category]}"] = 100 * float(of_category.mean()) if exists else None
    return figures


def evaluate(
    coco: dict[str, Any], detections: Sequence[dict[str, Any]], task: str, threads: int = 1
) -> COCOeval_faster:
    """A finished evaluation, with `stats` and `eval["precision"]`, `eval["recall"]` as in pycocotools.COCOeval."""
    common = {"images": coco["images"], "categories": coco["categories"]}
    # Its own ids: 0 would mean "not matched" within pycocotools.
    objects = [
        {"iscrowd": 0, "area": a["bbox"][2] * a["bbox"][3], **a, "id": i}
        for i, a in enumerate(coco["annotations"], start=1)
    ]
    # COCO.loadRes would measure masks one by one: more than half of the time for masks.
    areas = _areas(detections, task)
    found = [
        {**d, "id": i, "iscrowd": 0, "area": area}
        for i, (d, area) in enumerate(zip(detections, areas.tolist(), strict=True), start=1)
    ]
    evaluated = COCOeval_faster(
        _silent(common | {"annotations": objects}), _silent(common | {"annotations": found}), task,
        rle_iou_max_workers=threads,
    )  # fmt: skip
    evaluated.run()
    return evaluated


def _areas(detections: Sequence[dict[str, Any]], task: str) -> NDArray[np.float64]:
    """(D,) square pixels of box or mask; masks by their mask, as Detectron2 has COCO count them."""
    if not detections:
        return np.zeros(0)
    if task == "segm":
        return np.asarray(coco_mask.area([d["segmentation"] for d in detections]), np.float64)
    sides = np.array([d["bbox"][2:] for d in detections], np.float64)
    return sides[:, 0] * sides[:, 1]


def _silent(record: dict[str, Any]) -> COCO:
    api = COCO()
    api.dataset = record
    api.createIndex()
    return api


def _per_cent(value: float) -> float | None:
    return None if value < 0 else 100 * float(value)  # COCO's -1: nothing that could be counted
