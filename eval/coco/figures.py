"""The figures of arm_intervals and arm_mistakes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eval.coco.mistakes import KINDS
from eval.metric_names import TASK_LABELS
from eval.palette import COLOURS, arm_colours

__all__ = ["draw_intervals", "draw_mistakes"]


def draw_intervals(intervals: pd.DataFrame, differences: pd.DataFrame, path: Path) -> None:
    """One panel per protocol: each arm's AP with its interval over images, and its differences to other arms.

    Of a difference the thick line is the paired interval over images, the thin one that over seeds. `differences` is
    of eval.differences; arms that others are held against have a column of panels each.
    """
    protocols = list(dict.fromkeys(intervals["protocol"]))
    against = list(dict.fromkeys(differences["against"]))
    longest = max(int((intervals["protocol"] == protocol).sum()) for protocol in protocols)
    figure = Figure(figsize=(4.5 * (1 + len(against)), (0.3 * longest + 1.2) * len(protocols)), layout="constrained")
    panels = figure.subplots(len(protocols), 1 + len(against), squeeze=False)
    for (left, *others), protocol in zip(panels, protocols, strict=True):
        rows = intervals[intervals["protocol"] == protocol].sort_values("task", kind="stable")
        places = {key: y for y, key in enumerate(zip(rows["arm"], rows["task"], strict=True))}
        for y, row in enumerate(rows.itertuples(index=False)):
            _draw_line(left, y, str(row.task), float(row.ap), images=(float(row.low), float(row.high)))
        left.set(xlabel="AP, per cent", title=protocol, yticks=range(len(places)))
        left.set_yticklabels([f"{arm}, {TASK_LABELS[task]}" for arm, task in places])
        for axes, base in zip(others, against, strict=True):
            chosen = differences[(differences["protocol"] == protocol) & (differences["against"] == base)]
            for found in chosen.to_dict("records"):
                task = str(found["metric"]).partition("/")[0]
                if (found["arm"], task) in places:
                    ends = {name: (found[f"{name} low"], found[f"{name} high"]) for name in ("images", "seeds")}
                    _draw_line(axes, places[found["arm"], task], task, found["difference"], **ends)
            axes.axvline(0, color="black", linewidth=0.8)
            axes.set(xlabel=f"difference to {base}", yticks=range(len(places)), yticklabels=[])
        for axes in (left, *others):
            axes.set_ylim(len(places) - 0.5, -0.5)
            axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)


def _draw_line(
    axes: Axes, y: int, task: str, value: float, images: tuple[float, float], seeds: tuple[float, float] | None = None
) -> None:
    colour = COLOURS[list(TASK_LABELS).index(task)]
    if seeds:
        axes.plot(seeds, [y, y], color=colour, linewidth=0.9)
    axes.plot(images, [y, y], color=colour, linewidth=3, alpha=0.6, solid_capstyle="butt")
    axes.plot(value, y, "o", color=colour, markersize=4)


def draw_mistakes(mistakes: pd.DataFrame, arms: Sequence[str], path: Path) -> None:
    """One panel per protocol and task: what each kind of mistake costs each arm; `arms` are all of the table."""
    colours = arm_colours(arms)
    panels = list(dict.fromkeys(zip(mistakes["protocol"], mistakes["task"], strict=True)))
    figure = Figure(figsize=(8, 2.6 * len(panels) + 0.3), layout="constrained")
    for axes, (protocol, task) in zip(figure.subplots(len(panels), 1, squeeze=False)[:, 0], panels, strict=True):
        rows = mistakes[(mistakes["protocol"] == protocol) & (mistakes["task"] == task)]
        shown = list(dict.fromkeys(rows["arm"]))
        width = 0.8 / len(shown)
        for i, arm in enumerate(shown):
            costs = rows[rows["arm"] == arm].set_index("kind")["cost"].reindex(list(KINDS))
            places = np.arange(len(KINDS)) + (i - (len(shown) - 1) / 2) * width
            axes.bar(places, costs, 0.9 * width, label=arm, color=colours[arm])
        axes.set(xticks=range(len(KINDS)), xticklabels=list(KINDS), ylabel="points of AP50")
        axes.set_title(f"{protocol}: what {TASK_LABELS[task]} mistakes cost", fontsize=10)
        axes.legend(frameon=False, fontsize=8, ncols=min(len(shown), 5))
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
