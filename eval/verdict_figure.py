"""The figure of a rerun: each cell's AP before and after, with the tolerance around the original."""

from pathlib import Path
from typing import Final

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from eval.palette import COLOURS
from eval.verdict import RunVerdict, judged_metrics

__all__ = ["draw_verdict"]

_NOTHING: Final = "no two figures to compare"
_OF_OUTCOME: Final = {
    "identical": COLOURS[0],
    "reproduced": COLOURS[2],
    "not reproduced": COLOURS[1],
    "not comparable": COLOURS[7],
    "regressed": COLOURS[3],
}


def draw_verdict(verdict: RunVerdict, path: Path) -> None:
    """A panel for each judged metric, a row for each cell: original, tolerance, rerun. A hole's row stays empty."""
    cells, judged = verdict.cells, judged_metrics(verdict)
    figure = Figure(figsize=(4.6 * len(judged) + 2, 0.42 * len(cells) + 1.7), layout="constrained")
    panels = figure.subplots(1, len(judged), squeeze=False, sharey=True)[0]
    for axes, (metric, label) in zip(panels, judged.items(), strict=True):
        for row, cell in enumerate(cells):
            d = cell.differences.get(metric)
            if d is None or cell.outcome is None:
                place = axes.get_yaxis_transform()  # x as a share of the panel, y in rows
                axes.text(0.5, row, _NOTHING, transform=place, ha="center", va="center", color="0.5", fontsize=8)
                continue
            axes.errorbar(d.original, row, xerr=d.tolerance.ap, fmt="none", ecolor="0.6", elinewidth=6, alpha=0.6)
            axes.plot(d.original, row, "|", color="black", markersize=13)
            axes.plot(d.rerun, row, "o", color=_OF_OUTCOME["regressed" if d.fell else cell.outcome], markersize=6)
        axes.set(xlabel=f"{label}, per cent", yticks=range(len(cells)), ylim=(len(cells) - 0.4, -0.6))
        axes.set_yticklabels([f"{cell.cell}\n{cell.outcome or 'hole'}" for cell in cells], fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(handles=_legend(), ncols=4, loc="outside upper center", frameon=False, fontsize=8)
    figure.savefig(path, dpi=130)


def _legend() -> list[Line2D]:
    original = Line2D([], [], color="black", marker="|", markersize=11, linestyle="", label="original")
    tolerance = Line2D([], [], color="0.6", alpha=0.6, linewidth=6, label="tolerance")
    reruns = [
        Line2D([], [], color=colour, marker="o", linestyle="", label=f"rerun, {outcome}")
        for outcome, colour in _OF_OUTCOME.items()
    ]
    return [original, tolerance, *reruns]
