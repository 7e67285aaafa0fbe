"""`python -m eval.bench_coco [--images N]`: the COCO evaluation against pycocotools, at val2017's scale by default.

Made-up objects and detections (eval.coco.synthetic): 5,000 images, 36,781 objects in 80 categories, 100 detections an
image, with masks. What is timed begins with the parsed records and ends with the figures.
"""

import argparse
import contextlib
import copy
import io
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from rich.console import Console

from eval.coco.bootstrap import resample
from eval.coco.matches import Matches, collect, match_image
from eval.coco.overlaps import overlaps
from eval.coco.results import TASKS
from eval.coco.score import evaluate
from eval.coco.synthetic import make_detections, make_objects
from pcd.bench.harness import Row, Skipped, describe_environment, to_json, to_table
from pcd.cores import usable_cores

__all__ = ["main"]

_IMAGES, _OBJECTS, _CATEGORIES, _EACH = 5000, 36_781, 80, 100
_RESAMPLES: Final = 1000
_NAMES: Final = {"bbox": "boxes", "segm": "masks"}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m eval.bench_coco", description="Measure the COCO evaluation.")
    parser.add_argument("--images", type=int, default=_IMAGES, help=f"with objects in proportion; {_IMAGES} by default")
    parser.add_argument("--repeats", type=int, default=2, help="pairs of measurements; 2 by default")
    parser.add_argument("--threads", type=int, default=usable_cores(), help="all cores by default")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures and their environment there")
    options = parser.parse_args(arguments)
    console = Console(width=None if Console().is_terminal else 120)  # a pipe has no width of its own
    environment = describe_environment(torch.device("cpu")) | {"threads": options.threads}
    console.print(", ".join(f"{name} {value}" for name, value in environment.items()))
    coco = make_objects(options.images, round(_OBJECTS * options.images / _IMAGES), _CATEGORIES, seed=0)
    detections = make_detections(coco, _EACH, seed=1)
    results: list[Row | Skipped] = []
    for row in measure(coco, detections, options.threads, options.repeats):
        results.append(row)
        console.print(f"measured {row.name}")
        if options.json:  # after every row: a bench that is stopped early leaves what it has
            options.json.write_text(to_json(environment, results) + "\n")
    console.print(to_table(results))
    return 0


def measure(coco: dict[str, Any], detections: list[dict[str, Any]], threads: int, repeats: int) -> Iterator[Row]:
    """Evaluation of boxes and of masks, each in turn with pycocotools, then the bootstrap of either."""
    scale = f"{len(coco['images'])} images, {len(coco['annotations'])} objects, {len(detections)} detections"
    seconds = {}
    for task in TASKS:
        pairs = []
        for _ in range(repeats):
            began = time.perf_counter()
            ours = evaluate(coco, detections, task, threads)
            between = time.perf_counter()
            theirs = _pycocotools(coco, detections, task)
            pairs.append((between - began, time.perf_counter() - between))
            difference = max(abs(a - b) for a, b in zip(ours.stats, theirs.stats, strict=True))
        seconds[task], baseline = (statistics.median(times) for times in zip(*pairs, strict=True))
        yield Row(
            name=f"COCO figures, {_NAMES[task]}", ours=seconds[task], baseline=baseline, unit="s",
            ratio=statistics.median(slow / fast for fast, slow in pairs),
            note=f"pycocotools; {scale}; figures differ by {difference:.0e} at most",
        )  # fmt: skip
    for task in TASKS:
        began = time.perf_counter()
        matches = _match(coco, detections, task)
        matched = time.perf_counter()
        resample([matches], _RESAMPLES, seed=0, threads=threads)
        ours_seconds, baseline = time.perf_counter() - matched, _RESAMPLES * seconds[task]
        yield Row(
            name=f"bootstrap, {_NAMES[task]}", ours=ours_seconds, baseline=baseline, unit="s",
            ratio=baseline / ours_seconds,
            note=f"{_RESAMPLES} draws; matching took {matched - began:.1f} s; baseline: that many evaluations as above",
        )  # fmt: skip


def _match(coco: dict[str, Any], detections: list[dict[str, Any]], task: str) -> Matches:
    return collect(coco, [(image, match_image(image)) for image in overlaps(coco, detections, task)])


def _pycocotools(coco: dict[str, Any], detections: list[dict[str, Any]], task: str) -> Any:
    """As Detectron2 calls it: masks without their boxes, so that their own area counts."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = coco | {"annotations": [copy.copy(a) for a in coco["annotations"]]}
        truth.createIndex()
        left_out = {"bbox"} if task == "segm" else set()
        found = truth.loadRes([{k: v for k, v in d.items() if k not in left_out} for d in detections])
        evaluated = COCOeval(truth, found, task)
        evaluated.evaluate()
        evaluated.accumulate()
        evaluated.summarize()
    return evaluated


if __name__ == "__main__":
    sys.exit(main())
