"""The tables of a report, from the ap_table.json of its benchmark; without pandas, whose import takes a second."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from eval.metric_names import ABSENT, HEADLINES
from eval.report.content import Table
from eval.stacked import Stacked, stacked_arms, stacked_cells, without

__all__ = ["ap_text", "report_tables"]


_STAND_BY_ARM: Final = ("Intervals over images",)
"""Tables of which each row is a column of the first one."""


def report_tables(record: Mapping[str, Any]) -> list[Table]:
    """By arm, what else the benchmark has, and by cell: the parts that `record` lacks are left out."""
    bases = " and ".join(record.get("baselines", ()))
    protocols = list(dict.fromkeys(str(arm["protocol"]) for arm in record.get("printed", ())))
    by, shared = (f", by {protocols[0]}", ["protocol"]) if len(protocols) == 1 else ("", [])
    arms = _table(
        "By arm",
        f"Per cent{by}: mean ± standard deviation over n seeds; * the best, ~ not told from it (see the notes); Δ is "
        f"the difference to {bases}.",
        without(stacked_arms(record), *shared),
    )
    further = [
        _table(title, "Per cent, with the ends of each interval.", without(_as_stacked(rows), *shared))
        for title, rows in record.get("further", {}).items()
        if title not in _STAND_BY_ARM
    ]
    cells = _table("By cell", "Per cent; a dash where there is no figure.", stacked_cells(record))
    return [table for table in (arms, *further, cells) if table.rows]


def ap_text(figures: Mapping[str, Any]) -> str:
    """Such as "box AP 27.1, mask AP 20.4"; empty where there is none of what cells are compared by."""
    given = [(label, figures[name]) for name, label in HEADLINES.items() if name in figures]
    return ", ".join(f"{label} {ABSENT if value is None else f'{value:.1f}'}" for label, value in given)


def _as_stacked(rows: Sequence[Mapping[str, Any]]) -> Stacked:
    columns = tuple(dict.fromkeys(name for row in rows for name in row))
    return columns, [tuple(str(row.get(name, ABSENT)) for name in columns) for row in rows]


def _table(heading: str, caption: str, stacked: Stacked) -> Table:
    columns, rows = stacked
    return Table(heading=heading, caption=caption, columns=columns, rows=tuple(rows))
