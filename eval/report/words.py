"""The main figures of each picture in words, for those who do not see it."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from eval.metric_lines import read_metric_lines
from eval.metric_names import HEADLINES, TASK_LABELS
from eval.report.table import ap_text

__all__ = [
    "ap_words", "curve_words", "field_words", "gallery_words", "interval_words", "loss_words", "mistake_words",
    "similarity_words",
]  # fmt: skip

_NONE: Final = "Its figures are not at hand."


def ap_words(record: Mapping[str, Any]) -> str:
    """Of ap_table.json."""
    arms = [
        f"{row['arm']} by {row['protocol']}: " + ", ".join(f"{label} {row[label]}" for label in given)
        for row in record.get("printed", ())
        if (given := [label for label in HEADLINES.values() if label in row])
    ]
    return _joined("Bars, in per cent", arms)


def interval_words(file: Path) -> str:
    """Of intervals.csv. Raises OSError if it is gone, and KeyError or ValueError if it is another table."""
    told = [
        f"{row['arm']} by {row['protocol']}, {TASK_LABELS[row['task']]}: AP "
        + "{:.1f} ({:.1f} to {:.1f})".format(*(float(row[name]) for name in ("ap", "low", "high")))
        for row in _rows(file)
    ]
    return _joined("Points with 95 % intervals over images; the differences stand in their table", told)


def mistake_words(file: Path) -> str:
    """Of mistakes.csv: what costs each arm most. Raises what interval_words does."""
    costs: dict[tuple[str, str, str], dict[str, float]] = {}
    for row in _rows(file):
        costs.setdefault((row["arm"], row["protocol"], row["task"]), {})[row["kind"]] = float(row["cost"] or "nan")
    told = []
    for (arm, protocol, task), of in costs.items():
        kind = max(of, key=lambda name: (of[name] == of[name], of[name]))  # a NaN is no largest
        most = (
            f"{kind} costs most, {of[kind]:.1f} points of AP50" if of[kind] >= 0.05 else "none costs a tenth of a point"
        )
        told.append(f"{arm} by {protocol}, {TASK_LABELS[task]}: {most}")
    return _joined("Bars for each kind of mistake", told)


def _rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def loss_words(curves: Mapping[str, Path]) -> str:
    """Of the metrics.jsonl of each curve; those that are gone are left out."""
    told = []
    for label, file in curves.items():
        losses = [(line["step"], line["loss"]) for line in read_metric_lines(file) if "loss" in line]
        if losses:
            told.append(f"{label}: from {losses[0][1]:.3g} to {losses[-1][1]:.3g} at step {losses[-1][0]}")
    return _joined("Lines of the loss", told)


def curve_words(curves: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Of (epoch, per cent) of each pre-training."""
    told = [
        f"{label}: {points[0][1]:.1f} at epoch {points[0][0]:g}, {points[-1][1]:.1f} at epoch {points[-1][0]:g}"
        for label, points in curves.items()
    ]
    return _joined("Lines, in per cent", told)


def field_words(file: Path) -> str:
    """Of receptive_field.json. Raises what interval_words does."""
    record = json.loads(file.read_text())
    size = record["image_size"][0]
    told = [
        f"{said}: half of the field in a square of {record[name]['side_50']} px, 95 % in {record[name]['side_95']} px"
        for name, said in (("backbone", "backbone alone"), ("with_attention", "with self-attention"))
        if name in record
    ]
    return _joined(f"Maps over an image of {size} px", told)


def similarity_words(file: Path) -> str:
    """Of similarity_maps.json. Raises what interval_words does."""
    record = json.loads(file.read_text())
    told = f"{record['found']:.0%} of the student's pixels find their own place among {record['grid'][0]} x "
    return (
        told + f"{record['grid'][1]} of the teacher's in {record['images']} images; by chance {record['chance']:.0%}."
    )


def gallery_words(record: Mapping[str, Any]) -> str:
    """Of ap_table.json: what the columns stand for is worth. Which cells are shown stands over the columns."""
    told = [f"{row['cell']} with {ap_text(row)}" for row in record.get("cells", ()) if ap_text(row)]
    return _joined(
        "Rows of images, first with their ground truth, then with the detections of each arm. The cells", told
    )


def _joined(head: str, told: Sequence[str]) -> str:
    return f"{head}: {'; '.join(told)}." if told else f"{head}. {_NONE}"
