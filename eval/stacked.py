"""The tables of an ap_table.json with box above mask, so that they are no wider than a page, a terminal or a phone.

Without pandas, whose import alone takes a second.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from eval.metric_names import ABSENT, HEADLINES, TASK_LABELS

__all__ = ["NAMES", "Stacked", "stacked_arms", "stacked_cells", "without", "without_repeats"]

Stacked = tuple[tuple[str, ...], list[tuple[str, ...]]]
"""Columns, and rows of as many texts."""

NAMES: Final = ("arm", "protocol", "n", "cell", "figure")
"""Columns that name a row. `figure` is box or mask, or which accuracy, whose value stands in the column of AP."""

_OF_DETECTORS: Final = ("AP", "AP50", "AP75", "APs", "APm", "APl")
_ACCURACIES: Final = {"top1": HEADLINES["top1"], "top5": "top5", "knn_top1": HEADLINES["knn_top1"]}
"""Metric to its name in the tables."""


def stacked_arms(record: Mapping[str, Any]) -> Stacked:
    """Arm, protocol, n, figure, AP, its interval over images, Δ to the baselines, and the rest of COCO's figures.

    Columns in which no arm has a figure are left out.
    """
    differences = [f"Δ {baseline}" for baseline in record.get("baselines", ())]
    columns = ("AP", "over images", *differences, *_OF_DETECTORS[1:])
    images = {
        (row["arm"], row["protocol"], row["task"]): f"{row['low']:.1f} to {row['high']:.1f}"
        for row in record.get("intervals", ())
    }
    rows = []
    for arm in record.get("printed", ()):
        lines: list[tuple[str, dict[str, str]]] = []
        for task, kind in TASK_LABELS.items():
            figures = {name: arm.get(f"{kind} {name}", ABSENT) for name in (*_OF_DETECTORS, *differences)}
            figures["over images"] = images.get((arm["arm"], arm["protocol"], task), ABSENT)
            lines.append((kind, figures))
        for label in _ACCURACIES.values():
            figures = {"AP": arm.get(label, ABSENT)} | {d: arm.get(f"{label} {d}", ABSENT) for d in differences}
            lines.append((label, figures))
        rows += _lines([str(arm[name]) for name in ("arm", "protocol", "n")], lines, columns)
    return _without_empty(("arm", "protocol", "n", "figure", *columns), rows)


def stacked_cells(record: Mapping[str, Any]) -> Stacked:
    """Cell, figure, and COCO's figures; a hole has dashes. Columns in which no cell has a figure are left out."""
    rows = []
    for cell in (*record.get("cells", ()), *record.get("holes", ())):
        lines = [
            (kind, {name: _number(cell.get(f"{task}/{name}")) for name in _OF_DETECTORS})
            for task, kind in TASK_LABELS.items()
        ]
        lines += [(label, {"AP": _number(cell.get(metric))}) for metric, label in _ACCURACIES.items()]
        rows += _lines([str(cell["cell"])], lines, _OF_DETECTORS)
    return _without_empty(("cell", "figure", *_OF_DETECTORS), rows)


def without_repeats(stacked: Stacked) -> list[tuple[str, ...]]:
    """The rows, in which names are blank that stand in the row above, for who reads them as one block."""
    columns, rows = stacked
    names = columns.index("figure")
    above = [rows[i - 1][:names] if i else () for i in range(len(rows))]
    return [
        (*([""] * names if row[:names] == last else row[:names]), *row[names:])
        for row, last in zip(rows, above, strict=True)
    ]


def _lines(
    names: list[str], lines: Sequence[tuple[str, Mapping[str, str]]], columns: Sequence[str]
) -> list[tuple[str, ...]]:
    """Of what is given; of nothing one line of dashes."""
    told = [(kind, [figures.get(name, ABSENT) for name in columns]) for kind, figures in lines]
    given = [line for line in told if set(line[1]) != {ABSENT}] or [(ABSENT, told[0][1])]
    return [(*names, kind, *figures) for kind, figures in given]


def _without_empty(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> Stacked:
    empty = [
        name for i, name in enumerate(columns) if name not in (*NAMES, "AP") and all(row[i] == ABSENT for row in rows)
    ]
    return without((columns, rows), *empty)


def without(stacked: Stacked, *names: str) -> Stacked:
    """All but these columns."""
    columns, rows = stacked
    kept = [i for i, name in enumerate(columns) if name not in names]
    return tuple(columns[i] for i in kept), [tuple(row[i] for i in kept) for row in rows]


def _number(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.1f}"
