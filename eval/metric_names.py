"""What metrics are called: the names that results are stored under, and the words that people read."""

from typing import Final

__all__ = ["ABSENT", "HEADLINES", "TASK_LABELS", "label_of"]

HEADLINES: Final = {"bbox/AP": "box AP", "segm/AP": "mask AP", "top1": "top-1", "knn_top1": "kNN top-1"}
"""What arms are compared and reruns judged by, and how people call it."""

TASK_LABELS: Final = {"bbox": "box", "segm": "mask"}

ABSENT: Final = "–"
"""Printed where there is no figure."""


def label_of(metric: str) -> str:
    """Such as "box AP50" for bbox/AP50; a metric without a task keeps its name."""
    task, _, name = metric.rpartition("/")
    return f"{TASK_LABELS[task]} {name}" if task in TASK_LABELS else HEADLINES.get(metric, name)
