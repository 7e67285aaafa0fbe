"""Cityscapes' average precision of instances, by the official scripts (mcordts/cityscapesScripts, 2.2 and 2.3).

They are called image by image, so that no more than one image's masks lie on the disk at a time.
"""

import copy
import importlib.util
import json
import tempfile
import warnings
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from pcd.errors import PCDError

__all__ = ["MISSING_SCRIPTS", "has_scripts", "score"]

MISSING_SCRIPTS: Final = (
    "Cityscapes' official evaluation (score_by cityscapes) is not installed; pip install 'pcd-benchmark[cityscapes]'"
)


def has_scripts() -> bool:
    """Whether the official evaluation is installed: to be asked before a training that it is to judge."""
    return importlib.util.find_spec("cityscapesscripts") is not None


def score(predictions_file: Path, annotations: Path, set_folder: Path | None) -> dict[str, float | None]:
    """`segm/AP`, `segm/AP50` and each `segm/AP-<class>`, per cent; None where the split has no such object.

    Args:
        predictions_file: COCO result records with masks.
        annotations: as eval.datasets.cityscapes writes them, `truth` included.
        set_folder: where Cityscapes lies, leftImg8bit and gtFine.

    Raises:
        PCDError: the scripts are not installed, or an image's annotations are gone.
    """
    official, args = _official()
    coco = json.loads(annotations.read_text())
    found: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for record in json.loads(predictions_file.read_text()):
        found[record["image_id"]].append(record)
    matches: dict[str, Any] = {}
    with _names_of_older_numpy():
        for image in coco["images"]:
            truth = (set_folder or Path()).absolute() / image["truth"]
            if not truth.is_file():
                raise PCDError(f"{truth} does not exist; the set's folder has moved, or gtFine is not unpacked there")
            with tempfile.TemporaryDirectory() as folder:
                args.predictionPath = folder
                listing = _write_masks(found[image["id"]], Path(folder))
                matches[str(truth)] = _match(official, listing, truth, args)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # means over nothing, which are NaN
            averages = official.computeAverages(official.evaluateMatches(matches, args), args)
    classes = {category["name"]: averages["classes"][category["name"]]["ap"] for category in coco["categories"]}
    return {
        "segm/AP": _per_cent(averages["allAp"]),
        "segm/AP50": _per_cent(averages["allAp50%"]),
        **{f"segm/AP-{name}": _per_cent(ap) for name, ap in classes.items()},
    }


def _official() -> tuple[Any, Any]:
    """The scripts' module, and their settings as they come but quiet and without files of their own."""
    try:
        from cityscapesscripts.evaluation import (  # type: ignore[import-untyped]
            evalInstanceLevelSemanticLabeling as official,  # noqa: N813
        )
    except ImportError:
        raise PCDError(f"{MISSING_SCRIPTS}, and fine-tune again") from None
    args = copy.copy(official.args)
    args.quiet, args.JSONOutput = True, False
    official.setInstanceLabels(args)
    return official, args


@contextmanager
def _names_of_older_numpy() -> Iterator[None]:
    """The scripts call np.in1d, which numpy 2.4 no longer has."""
    if hasattr(np, "in1d"):
        yield
        return
    np.in1d = np.isin  # type: ignore[attr-defined]  # noqa: NPY201
    try:
        yield
    finally:
        del np.in1d  # type: ignore[attr-defined]  # noqa: NPY201


def _write_masks(records: list[dict[str, Any]], folder: Path) -> Path:
    """As the scripts want them: a list of file, label id and score, and a picture for each mask."""
    from pycocotools import mask as coco_mask

    lines = []
    for number, record in enumerate(records):
        mask = coco_mask.decode(record["segmentation"]).astype(bool)  # (height, width)
        Image.fromarray(mask).save(folder / f"{number}.ppm")  # one bit a pixel: ten times quicker than PNG
        lines.append(f"{number}.ppm {record['category_id']} {record['score']}\n")
    listing = folder / "masks.txt"
    listing.write_text("".join(lines))
    return listing


def _match(official: Any, listing: Path, truth: Path, args: Any) -> dict[str, Any]:
    instances = official.filterGtInstances(official.instances2dict([str(truth)])[str(truth)], args)
    masks = official.readPredInfo(str(listing), args)
    with Image.open(truth) as image:
        objects, predictions = official.assignGt2Preds(instances, image, masks, args)
    return {"groundTruth": objects, "prediction": predictions}


def _per_cent(value: float) -> float | None:
    return None if np.isnan(value) else float(100 * value)
