"""The verdicts of a rerun as a table: data frame, Markdown, HTML, JSON, and the few lines of a notification."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import pandas as pd

from eval.metric_names import ABSENT
from eval.verdict import JUDGED_METRICS, CellVerdict, RunVerdict, judged_metrics
from eval.written_tables import as_markdown, as_page
from pcd.stage import write_text

__all__ = ["describe_verdict", "message_of", "printed_verdicts", "summary_of", "verdict_frame", "write_verdict"]

_MESSAGE_CELLS: Final = 20

_NOTES: Final = (
    "identical: the same weights and the same figures. reproduced: box and mask AP, or a probe's accuracy, lie within "
    "the tolerance. not comparable: what differs is listed; a drop by more than the tolerance is told all the same.",
    "Tolerance: the larger of t · s · √2 over the original's seeds (95 %, for each figure alone: of twenty, one is "
    "expected outside) and of the benchmark's stated noise (noise_ap).",
)


def verdict_frame(verdict: RunVerdict) -> pd.DataFrame:
    """One row per cell: cell, verdict, regressed, for each judged metric `… original`, `… rerun`, `… difference`,
    `… tolerance` (per cent, NaN where nothing is said) and `… tolerance from`, and `reasons`.
    """  # fmt: skip
    rows: list[dict[str, Any]] = []
    for cell in verdict.cells:
        row: dict[str, Any] = {"cell": cell.cell, "verdict": cell.outcome or "hole", "regressed": cell.regressed}
        for metric in judged_metrics(verdict):
            d = cell.differences.get(metric)
            row |= {
                f"{metric} original": d.original if d else float("nan"),
                f"{metric} rerun": d.rerun if d else float("nan"),
                f"{metric} difference": d.change if d else float("nan"),
                f"{metric} tolerance": d.tolerance.ap if d else float("nan"),
                f"{metric} tolerance from": d.tolerance.source if d else "",
            }
        rows.append(row | {"reasons": "; ".join(cell.reasons)})
    return pd.DataFrame(rows)


def printed_verdicts(verdict: RunVerdict) -> pd.DataFrame:
    """As text: APs with one decimal, differences and tolerances with two; the first reason of each kind."""
    rows = []
    for cell in verdict.cells:
        row = {"cell": cell.cell, "verdict": _named(cell)}
        for metric, label in judged_metrics(verdict).items():
            d = cell.differences.get(metric)
            row[label] = f"{d.original:.1f} → {d.rerun:.1f}" if d else ABSENT
            row[f"Δ {label}"] = f"{d.change:+.2f}" if d else ABSENT
            row[f"tolerance of {label}"] = f"± {d.tolerance.ap:.2f} ({d.tolerance.source})" if d else ABSENT
        rows.append(row | {"what differs, or is missing": _in_short(cell.reasons) or ABSENT})
    return pd.DataFrame(rows)


def summary_of(name: str, verdict: RunVerdict) -> str:
    """Markdown: the counts, and a table that is narrow enough to stand where there is little room."""
    shown = printed_verdicts(verdict)[
        ["cell", "verdict", *(f"Δ {label}" for label in judged_metrics(verdict).values())]
    ]
    counts = message_of(name, verdict).splitlines()[0]
    return f"**{counts}**\n\n{as_markdown(shown)}\n"


def message_of(name: str, verdict: RunVerdict) -> str:
    """What a notification says: the verdict, and each cell that asks for a look with its difference."""
    counts: dict[str, int] = {}
    for cell in verdict.cells:
        counts[_named(cell)] = counts.get(_named(cell), 0) + 1
    lines = [f"rerun of {name}: " + ", ".join(f"{count} {outcome}" for outcome, count in counts.items())]
    telling = [cell for cell in verdict.cells if cell.outcome not in ("identical", "reproduced") or cell.regressed]
    lines += [_line_of(cell) for cell in telling[:_MESSAGE_CELLS]]
    if len(telling) > _MESSAGE_CELLS:
        lines.append(f"and {len(telling) - _MESSAGE_CELLS} more cells")
    return "\n".join(lines)


def describe_verdict(verdict: RunVerdict) -> dict[str, Any]:
    """Plain JSON data."""
    cells = [dataclasses.asdict(cell) | {"regressed": cell.regressed} for cell in verdict.cells]
    whole = {"outcome": verdict.outcome, "regressed": verdict.regressed, "is_failure": verdict.is_failure}
    return whole | {"cells": cells}


def write_verdict(folder: Path, title: str, verdict: RunVerdict, notes: Sequence[str]) -> None:
    """Write verdict.csv, verdict.json, verdict.md and verdict.html; `notes` stand under the table, before our own."""
    verdict_frame(verdict).to_csv(folder / "verdict.csv", index=False, float_format="%.4f")
    shown, notes = printed_verdicts(verdict), (*notes, *_NOTES)
    record = {"title": title, **describe_verdict(verdict), "notes": notes}
    write_text(folder / "verdict.json", json.dumps(record, indent=2) + "\n")
    write_text(
        folder / "verdict.md",
        "\n".join([f"# {title}", "", as_markdown(shown), "", *(f"- {note}" for note in notes)]) + "\n",
    )
    write_text(folder / "verdict.html", as_page(title, [("By cell", shown)], notes))


def _named(cell: CellVerdict) -> str:
    return (cell.outcome or "hole") + (" (regressed)" if cell.regressed else "")


def _line_of(cell: CellVerdict) -> str:
    parts = [_named(cell)]
    for metric, label in JUDGED_METRICS.items():
        if d := cell.differences.get(metric):
            allowed = f"tolerance {d.tolerance.ap:.2f} by {d.tolerance.source}"
            parts.append(f"{label} {d.original:.2f} -> {d.rerun:.2f} ({d.change:+.2f}, {allowed})")
    return f"{cell.cell}: {'; '.join(parts + ([_in_short(cell.reasons)] if cell.reasons else []))}"


def _in_short(reasons: Sequence[str]) -> str:
    """The first of each kind: a changed version must not hide behind thirty changed files."""
    kinds: dict[str, list[str]] = {}
    for reason in reasons:
        kinds.setdefault(reason.partition(":")[0], []).append(reason)
    return "; ".join(first + (f" and {len(rest)} more" if rest else "") for first, *rest in kinds.values())
