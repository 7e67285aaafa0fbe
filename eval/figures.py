"""The figures of a benchmark: AP by arm, losses, and detections beside the ground truth."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from PIL import Image
from pycocotools import mask as coco_mask

from eval.data import Split
from eval.metric_lines import read_metric_lines
from eval.metric_names import HEADLINES
from eval.palette import COLOURS, arm_colours
from eval.results_frame import Hole

__all__ = ["Curve", "draw_ap_bars", "draw_gallery", "draw_losses"]

_LINES: Final[tuple[Literal["-", "--", ":", "-."], ...]] = ("-", "--", ":", "-.")


def draw_ap_bars(cells: pd.DataFrame, path: Path, holes: Sequence[Hole] = ()) -> None:
    """What each arm is compared by, mostly box and mask AP: the mean, a dot per seed, their standard deviation.

    An arm of which some cells are holes says so below its name; one without any cell has no bar.
    """
    protocols = list(dict.fromkeys([*cells["protocol"], *(hole.protocol for hole in holes)]))
    wide = max(4.5, 1.15 * cells["arm"].nunique())  # room for an arm's name below each pair of bars
    figure = Figure(figsize=(wide * len(protocols) + 1, 3.6), layout="constrained")
    all_axes = figure.subplots(1, len(protocols), squeeze=False)[0]
    for axes, protocol in zip(all_axes, protocols, strict=True):
        of_protocol = cells[cells["protocol"] == protocol]
        lost = [hole.arm for hole in holes if hole.protocol == protocol]
        arms = list(dict.fromkeys([*of_protocol["arm"], *lost]))
        counts = {arm: int((of_protocol["arm"] == arm).sum()) for arm in arms}
        given = {metric: label for metric, label in HEADLINES.items() if metric in cells}
        found = {metric: label for metric, label in given.items() if of_protocol[metric].notna().any()} or given
        for i, (metric, label) in enumerate(found.items()):
            places = np.array([place for place, arm in enumerate(arms) if counts[arm]])
            places = places + (i - (len(found) - 1) / 2) * 0.38
            values = [of_protocol.loc[of_protocol["arm"] == arm, metric] for arm in arms if counts[arm]]
            means, stds = [v.mean() for v in values], [v.std(ddof=1) if len(v) > 1 else 0.0 for v in values]
            bars = axes.bar(places, means, 0.36, color=COLOURS[i], alpha=0.75, label=label)
            axes.bar_label(bars, fmt="%.1f", label_type="center")
            axes.errorbar(places, means, stds, fmt="none", ecolor="black", capsize=4, elinewidth=1)
            for place, of_arm in zip(places, values, strict=True):
                axes.plot([place] * len(of_arm), of_arm, "o", color="black", markersize=3)
        names = [
            f"{arm}\n{counts[arm]} of {counts[arm] + lost.count(arm)} seeds" if arm in lost else arm for arm in arms
        ]
        axes.set(xticks=range(len(arms)), xticklabels=names, ylabel="per cent", title=protocol)
        axes.set_xlim(-0.5, len(arms) - 0.5)
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)


@dataclass(frozen=True, slots=True)
class Curve:
    """The losses of one stage."""

    arm: str
    """By which its colour is chosen."""
    label: str
    """In the legend; the seeds of an arm have the same, and one entry."""
    file: Path
    """metrics.jsonl"""


def draw_losses(panels: Mapping[str, Sequence[Curve]], arms: Sequence[str], path: Path) -> None:
    """One panel per kind of stage. An arm has one colour in all of them, and its protocols lines of other kinds.

    Args:
        panels: title to curves.
        arms: all of the table, in its order.
    """
    colours = arm_colours(arms)
    figure = Figure(figsize=(4.8 * len(panels), 3.4), layout="constrained")
    for axes, (title, curves) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        entries: dict[str, Line2D] = {}
        for curve in curves:
            lines = [line for line in read_metric_lines(curve.file) if "loss" in line]
            points = pd.DataFrame(lines, columns=["step", "loss"])
            smooth = points["loss"].rolling(5, min_periods=1).mean()
            of_arm = list(dict.fromkeys(other.label for other in curves if other.arm == curve.arm))
            kind = _LINES[of_arm.index(curve.label) % len(_LINES)]
            axes.plot(points["step"], smooth, color=colours[curve.arm], linestyle=kind, linewidth=1.2)
            entries[curve.label] = Line2D([], [], color=colours[curve.arm], linestyle=kind, label=curve.label)
        axes.set(xlabel="step", ylabel="loss (mean of 5 records)", title=title)
        axes.legend(handles=list(entries.values()), frameon=False, fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)


def draw_gallery(split: Split, predictions: Mapping[str, Path], path: Path, images: int = 6) -> None:
    """The first images with objects: a column of ground truth, and one of detections for each entry of `predictions`.

    Of an image a column shows its best detections, as many as there are objects. `predictions` maps a column's title to
    a predictions.json.
    """
    coco = json.loads(split.annotations.read_text())
    names = {c["id"]: c["name"] for c in coco["categories"]}
    with_objects = {a["image_id"] for a in coco["annotations"]}
    chosen = [image for image in coco["images"] if image["id"] in with_objects][:images] or coco["images"][:images]
    found = {title: json.loads(file.read_text()) for title, file in predictions.items()}
    columns = 1 + len(found)
    figure = Figure(figsize=(2.4 * columns, 2.4 * len(chosen)), layout="constrained")
    panels = figure.subplots(len(chosen), columns, squeeze=False)
    for column, title in zip(panels[0], ("ground truth", *found), strict=True):
        column.set_title(title, fontsize=9)
    for row, image in zip(panels, chosen, strict=True):
        with Image.open(split.images / image["file_name"]) as file:
            pixels = np.asarray(file.convert("RGB"))
        objects = [a for a in coco["annotations"] if a["image_id"] == image["id"]]
        for axes, shown in zip(row, [objects, *(_best(of, image, len(objects)) for of in found.values())], strict=True):
            axes.imshow(pixels)
            _draw_objects(axes, shown, names, image)
            axes.set_axis_off()
    figure.savefig(path, dpi=100)


def _best(detections: Sequence[dict[str, Any]], image: Mapping[str, Any], count: int) -> list[dict[str, Any]]:
    of_image = [d for d in detections if d["image_id"] == image["id"]]
    return sorted(of_image, key=lambda d: float(d["score"]), reverse=True)[:count]


def _draw_objects(
    axes: Axes, objects: Sequence[Mapping[str, Any]], names: Mapping[int, str], image: Mapping[str, Any]
) -> None:
    order = sorted(names)
    for shape in objects:
        colour = COLOURS[order.index(shape["category_id"]) % len(COLOURS)]
        if shape.get("segmentation"):  # a set of boxes has none, and neither has a detector of boxes
            mask = _decode(shape["segmentation"], image["height"], image["width"])
            axes.imshow(np.dstack([np.broadcast_to(colour, (*mask.shape, 3)), 0.45 * mask]))
        x, y, width, height = shape["bbox"]
        axes.add_patch(Rectangle((x, y), width, height, fill=False, edgecolor=colour, linewidth=1.2))
        label = names[shape["category_id"]] + (f" {shape['score']:.2f}" if "score" in shape else "")
        axes.text(x, y - 1, label, fontsize=6, color="white", backgroundcolor=(*colour, 0.8), va="bottom", clip_on=True)


def _decode(segmentation: Any, height: int, width: int) -> Any:
    """(height, width) of 0 and 1 from COCO's polygons, uncompressed or compressed RLE."""
    if isinstance(segmentation, list):
        rle = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation["counts"], list):
        rle = coco_mask.frPyObjects(segmentation, height, width)
    else:
        rle = segmentation
    return coco_mask.decode(rle)
