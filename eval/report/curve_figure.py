"""AP against the epoch of pre-training, from what the stages `watch` left."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from eval.metric_names import HEADLINES

__all__ = ["curves_of", "draw_curves"]


def curves_of(results: Mapping[str, Mapping[str, Any]]) -> tuple[str, dict[str, list[tuple[float, float]]]]:
    """Name of a pre-training to the result.json of its watch -> what is measured, and (epoch, per cent) of each.

    Snapshots without a figure are left out, and so are pre-trainings without any.
    """
    metrics = {name for result in results.values() for point in result.get("curve", ()) for name in point["metrics"]}
    metric = next((name for name in HEADLINES if name in metrics), "")
    curves = {
        label: [
            (float(point["epoch"]), float(point["metrics"][metric]))
            for point in result.get("curve", ())
            if point["metrics"].get(metric) is not None
        ]
        for label, result in results.items()
    }
    return HEADLINES.get(metric, ""), {label: points for label, points in curves.items() if points}


def draw_curves(label: str, curves: Mapping[str, Sequence[tuple[float, float]]]) -> bytes:
    """A line for each pre-training; the bytes of a PNG."""
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    for name, points in curves.items():
        axes.plot([epoch for epoch, _ in points], [value for _, value in points], "o-", markersize=4, label=name)
    axes.set(xlabel="epoch of pre-training", ylabel=f"{label}, per cent")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=130)
    return png.getvalue()
