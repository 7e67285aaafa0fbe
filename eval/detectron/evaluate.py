"""What a detector finds on one split, and what that is worth by the set's own rules."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator, inference_on_dataset
from detectron2.evaluation.coco_evaluation import instances_to_coco_json

from eval.coco.report import report
from eval.coco.results import TASKS, check_results
from eval.coco_file import parse_coco
from eval.datasets import cityscapes_score, voc_score
from eval.detectron.data import evaluation_loader
from eval.finetune_settings import ScoreBy
from pcd.images import iterate
from pcd.stage import Spec, Stopped, write_text

__all__ = ["evaluate_detector"]


def evaluate_detector(
    cfg: Any, detector: Any, val_name: str, spec: Spec, score_by: ScoreBy = "coco", set_folder: Path | None = None
) -> dict[str, float | None]:
    """`bbox/AP`, `segm/AP50`, `bbox/AR100`, `bbox/AP-disk`, … in per cent; None where the split has no such object.

    Leaves the detections as predictions.json (COCO result records) in `spec.out`, and by COCO's rules what
    eval.coco.report leaves.

    Args:
        score_by: whose rules the figures go by; VOC's are of boxes, Cityscapes' of masks.
        set_folder: where Cityscapes lies, for its official evaluation.

    Raises:
        Stopped: asked to stop; the training's last checkpoint is there, and the evaluation begins anew.
        PCDError: an image cannot be read, or the detections are no numbers.
    """
    out = spec.out
    loader = _Watched(evaluation_loader(cfg, val_name, spec.runtime["workers"]), spec)
    found = inference_on_dataset(detector, loader, _Records(val_name))["records"]
    predictions = out / "predictions.json"
    write_text(predictions, json.dumps(found))
    if not found:
        print(f"warning: the detector found nothing on {len(loader)} images; every AP is 0", flush=True)
    annotations = Path(MetadataCatalog.get(val_name).json_file)
    coco = parse_coco(annotations)
    tasks = TASKS if cfg.MODEL.MASK_ON else TASKS[:1]
    check_results(found, coco, tasks, predictions)
    if score_by == "voc":
        return voc_score.score(predictions, annotations)
    if score_by == "cityscapes":
        return cityscapes_score.score(predictions, annotations, set_folder)
    return report(coco, found, tasks, out, spec.runtime["threads"])


class _Records(DatasetEvaluator):  # type: ignore[misc]
    """Detections as COCO result records, with the annotations' own ids of categories."""

    def __init__(self, val_name: str) -> None:
        places = MetadataCatalog.get(val_name).thing_dataset_id_to_contiguous_id
        self._ids = {place: number for number, place in places.items()}
        self._records: list[dict[str, Any]] = []

    def reset(self) -> None:
        self._records = []

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        for image, output in zip(inputs, outputs, strict=True):
            found = instances_to_coco_json(output["instances"].to(torch.device("cpu")), image["image_id"])
            self._records += [record | {"category_id": self._ids[record["category_id"]]} for record in found]

    def evaluate(self) -> dict[str, Any]:
        return {"records": self._records}


class _Watched:
    """A loader whose progress is told."""

    def __init__(self, loader: Any, spec: Spec) -> None:
        self._loader, self._spec = loader, spec

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Any]:
        for number, batch in enumerate(iterate(self._loader)):
            self._spec.activity("evaluation", number, len(self))
            if self._spec.stop_requested:
                raise Stopped
            yield batch
        self._spec.activity("AP", 0, 1)  # all detections are compared with all objects
