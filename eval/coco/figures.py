"""The figures of arm_intervals and arm_mistakes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from eval.coco.mistakes import KINDS

__all__ = ["draw_intervals", "draw_mistakes"]

_COLOURS: Final = mpl.colormaps["tab10"].colors  # type: ignore[attr-defined]
_TASKS: Final = {"bbox": "box", "segm": "mask"}


def draw_intervals(intervals: pd.DataFrame, baselines: Sequence[str], path: Path) -> None:
    """One panel per protocol: each arm's AP and its interval over images, and the paired ones of its differences.

    An arm's difference to a baseline can be told from chance where its line does not touch 0.
    """
    protocols = list(dict.fromkeys(intervals["protocol"]))
    longest = max(int((intervals["protocol"] == protocol).sum()) for protocol in protocols)
    figure = Figure(figsize=(4.5 * (1 + len(baselines)), (0.3 * longest + 1.2) * len(protocols)), layout="constrained")
    panels = figure.subplots(len(protocols), 1 + len(baselines), squeeze=False)
    for (left, *others), protocol in zip(panels, protocols, strict=True):
        rows = intervals[intervals["protocol"] == protocol].sort_values("task", kind="stable").reset_index()
        labels = [f"{arm}, {_TASKS[task]}" for arm, task in zip(rows["arm"], rows["task"], strict=True)]
        colours = [_COLOURS[list(_TASKS).index(task)] for task in rows["task"]]
        differences = [(axes, f"Δ {base}", f"Δ {base} ") for axes, base in zip(others, baselines, strict=True)]
        for axes, name, prefix in ((left, "ap", ""), *differences):
            for y, colour in enumerate(colours):
                axes.plot([rows[f"{prefix}low"][y], rows[f"{prefix}high"][y]], [y, y], color=colour, linewidth=2)
                axes.plot(rows[name][y], y, "o", color=colour, markersize=4)
            axes.set(yticks=range(len(labels)), yticklabels=labels if axes is left else [])
            axes.set_ylim(len(labels) - 0.5, -0.5)
            axes.spines[["top", "right"]].set_visible(False)
        left.set(xlabel="AP, per cent", title=protocol)
        for axes, baseline in zip(others, baselines, strict=True):
            axes.axvline(0, color="black", linewidth=0.8)
            axes.set(xlabel=f"difference to {baseline}, same images")
    figure.savefig(path, dpi=130)


def draw_mistakes(mistakes: pd.DataFrame, path: Path) -> None:
    """One panel per protocol and task: what each kind of mistake costs each arm."""
    panels = list(dict.fromkeys(zip(mistakes["protocol"], mistakes["task"], strict=True)))
    figure = Figure(figsize=(8, 2.6 * len(panels) + 0.3), layout="constrained")
    for axes, (protocol, task) in zip(figure.subplots(len(panels), 1, squeeze=False)[:, 0], panels, strict=True):
        rows = mistakes[(mistakes["protocol"] == protocol) & (mistakes["task"] == task)]
        arms = list(dict.fromkeys(rows["arm"]))
        width = 0.8 / len(arms)
        for i, arm in enumerate(arms):
            costs = rows[rows["arm"] == arm].set_index("kind")["cost"].reindex(list(KINDS))
            places = np.arange(len(KINDS)) + (i - (len(arms) - 1) / 2) * width
            axes.bar(places, costs, 0.9 * width, label=arm, color=_COLOURS[i % len(_COLOURS)])
        axes.set(xticks=range(len(KINDS)), xticklabels=list(KINDS), ylabel="points of AP50")
        axes.set_title(f"{protocol}: what {_TASKS[task]} mistakes cost", fontsize=10)
        axes.legend(frameon=False, fontsize=8, ncols=min(len(arms), 5))
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
