"""pycocotools, which the field's figures come from, as a plain function."""

import contextlib
import copy
import io
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

__all__ = ["pycocotools_eval"]


def pycocotools_eval(coco: dict[str, Any], detections: list[dict[str, Any]], task: str) -> COCOeval:
    """As Detectron2 calls it: the area of a mask is not that of its box."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = copy.deepcopy(coco)
        truth.createIndex()
        shape = {"bbox": "bbox", "segm": "segmentation"}[task]
        found = truth.loadRes([{k: d[k] for k in ("image_id", "category_id", "score", shape)} for d in detections])
        evaluated = COCOeval(truth, found, task)
        evaluated.evaluate()
        evaluated.accumulate()
        evaluated.summarize()
    assert np.isfinite(evaluated.stats).all()
    return evaluated
