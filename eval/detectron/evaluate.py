"""COCO box and mask AP of a detector on one split."""

import math
from pathlib import Path
from typing import Any

from detectron2.evaluation import COCOEvaluator, inference_on_dataset

from eval.detectron.data import evaluation_loader

__all__ = ["evaluate_detector"]


def evaluate_detector(cfg: Any, detector: Any, val_name: str, workers: int, out: Path) -> dict[str, float | None]:
    """`bbox/AP`, `segm/AP50`, `bbox/AP-disk`, … in per cent; None where the split has no such object.

    Leaves the detections as predictions.json (COCO result records) in `out`.
    """
    evaluator = COCOEvaluator(
        val_name, tasks=("bbox", "segm"), distributed=False, output_dir=str(out), use_fast_impl=False
    )
    found = inference_on_dataset(detector, evaluation_loader(cfg, val_name, workers), evaluator)
    (out / "coco_instances_results.json").replace(out / "predictions.json")
    (out / "instances_predictions.pth").unlink(missing_ok=True)
    names = ("AP", "AP50", "AP75", "APs", "APm", "APl")
    metrics: dict[str, float | None] = {}
    for task in ("bbox", "segm"):
        values = found.get(task, {})  # empty when nothing was detected at all: that is an AP of 0
        for name in (*names, *(key for key in values if key.startswith("AP-"))):
            value = float(values.get(name, 0.0))
            metrics[f"{task}/{name}"] = None if math.isnan(value) else value
    return metrics
