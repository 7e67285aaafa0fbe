"""The tables of a report, from the ap_table.json of its benchmark; without pandas, whose import takes a second."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from eval.report.content import Table

__all__ = ["HEADLINE_LABELS", "ap_text", "report_tables"]

_HEADLINES: Final = {"bbox/AP": "box AP", "segm/AP": "mask AP", "top1": "top-1", "knn_top1": "kNN top-1"}
"""As eval.table.HEADLINES, which imports pandas; a test holds the two together."""

HEADLINE_LABELS: Final = tuple(_HEADLINES.values())
_ABSENT: Final = "–"
_NAMES: Final = ("cell", "arm", "protocol", "seed")


def report_tables(record: Mapping[str, Any]) -> list[Table]:
    """By arm, by cell, and what else the benchmark has: the parts that `record` lacks are left out."""
    bases = " and ".join(record.get("baselines") or [record.get("baseline", "the baseline")])
    arms = _table(
        "By arm", f"Per cent: mean ± standard deviation over n seeds; Δ is the difference to {bases}.",
        record.get("printed", ()),
    )  # fmt: skip
    cells = _table("By cell", "Per cent; a dash where there is no figure.", _printed_cells(record))
    further = [
        _table(title, "Per cent, with the ends of each interval.", rows)
        for title, rows in record.get("further", {}).items()
    ]
    return [table for table in (arms, cells, *further) if table.rows]


def ap_text(figures: Mapping[str, Any]) -> str:
    """Such as "box AP 27.1, mask AP 20.4"; empty where there is none of what cells are compared by."""
    given = [(label, figures[name]) for name, label in _HEADLINES.items() if name in figures]
    return ", ".join(f"{label} {_number(value)}" for label, value in given)


def _printed_cells(record: Mapping[str, Any]) -> list[dict[str, str]]:
    """A hole is a row of dashes."""
    cells: Sequence[Mapping[str, Any]] = record.get("cells", ())
    metrics = list(dict.fromkeys(name for cell in cells for name in cell if name not in _NAMES))
    rows = [_names(cell) | {_label(name): _number(cell.get(name)) for name in metrics} for cell in cells]
    return rows + [_names(hole) | {_label(name): _ABSENT for name in metrics} for hole in record.get("holes", ())]


def _names(row: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(row.get(name, _ABSENT)) for name in _NAMES}


def _label(metric: str) -> str:
    task, _, name = metric.rpartition("/")
    return {"bbox": "box ", "segm": "mask "}.get(task, "") + name


def _number(value: float | None) -> str:
    return _ABSENT if value is None else f"{value:.1f}"


def _table(heading: str, caption: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    columns = tuple(dict.fromkeys(name for row in rows for name in row))
    texts = tuple(tuple(str(row.get(name, _ABSENT)) for name in columns) for row in rows)
    return Table(heading=heading, caption=caption, columns=columns, rows=texts)
