"""COCO box and mask AP of a detector on one split."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from detectron2.data import MetadataCatalog
from detectron2.evaluation import COCOEvaluator, inference_on_dataset

from eval.detectron.data import evaluation_loader
from pcd.stage import Spec, Stopped

__all__ = ["evaluate_detector"]

_AREAS: Final = {"APs": (0, 32**2), "APm": (32**2, 96**2), "APl": (96**2, math.inf)}
"""Square pixels, as COCO counts them."""


def evaluate_detector(cfg: Any, detector: Any, val_name: str, spec: Spec) -> dict[str, float | None]:
    """`bbox/AP`, `segm/AP50`, `bbox/AP-disk`, … in per cent; None where the split has no such object.

    Leaves the detections as predictions.json (COCO result records) in `spec.out`.

    Raises Stopped when asked to stop: the training's last checkpoint is there, and the evaluation begins anew.
    """
    out, workers = spec.out, spec.runtime["workers"]
    evaluator = COCOEvaluator(val_name, ("bbox", "segm"), distributed=False, output_dir=str(out), use_fast_impl=False)
    found = inference_on_dataset(detector, _Watched(evaluation_loader(cfg, val_name, workers), spec), evaluator)
    (out / "coco_instances_results.json").replace(out / "predictions.json")
    (out / "instances_predictions.pth").unlink(missing_ok=True)
    return {
        f"{task}/{name}": _value(found.get(task, {}).get(name, math.nan)) if exists else None
        for task in ("bbox", "segm")
        for name, exists in _existing(val_name).items()
    }


class _Watched:
    """A loader whose progress is told."""

    def __init__(self, loader: Any, spec: Spec) -> None:
        self._loader, self._spec = loader, spec

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Any]:
        for number, batch in enumerate(self._loader):
            self._spec.activity("evaluation", number, len(self))
            if self._spec.stop_requested:
                raise Stopped
            yield batch
        self._spec.activity("AP", 0, 1)  # pycocotools compares all detections with all objects


def _value(value: float) -> float:
    # Detectron2 says NaN for a size class or category without objects, which is None by then, and for everything when
    # nothing was detected at all: that is an AP of 0.
    return 0.0 if math.isnan(value) else float(value)


def _existing(val_name: str) -> dict[str, bool]:
    """Every figure of a task, and whether the split has an object that it could count."""
    catalogue = MetadataCatalog.get(val_name)
    coco = json.loads(Path(catalogue.json_file).read_text())
    objects = [a for a in coco["annotations"] if not a["iscrowd"]]
    existing = dict.fromkeys(("AP", "AP50", "AP75"), bool(objects))
    existing |= {name: any(low <= a["area"] <= high for a in objects) for name, (low, high) in _AREAS.items()}
    seen = {a["category_id"] for a in objects}
    return existing | {f"AP-{c['name']}": c["id"] in seen for c in sorted(coco["categories"], key=lambda c: c["id"])}
