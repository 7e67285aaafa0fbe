"""The AP table, a view of eval.results_frame: one row per cell, one per arm, in CSV, JSON, Markdown and HTML."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import pandas as pd

from eval.metric_names import ABSENT, HEADLINES, label_of
from eval.results_frame import Cell, Hole, results_frame
from eval.standing import MARKS, Standing
from eval.written_tables import as_markdown, as_page
from pcd.stage import write_text

__all__ = [
    "METRICS",
    "arm_table", "cell_table", "hole_notes", "printed_arms", "printed_cells", "write_tables",
]  # fmt: skip

METRICS: Final = tuple(
    f"{task}/{name}" for task in ("bbox", "segm") for name in ("AP", "AP50", "AP75", "APs", "APm", "APl")
)
"""A Mask R-CNN's columns, per cent; the size classes are COCO's: below 32², 96², and above, in pixels."""

_CELL_NAMES: Final = ("cell", "arm", "protocol", "seed")


def cell_table(cells: Sequence[Cell]) -> pd.DataFrame:
    """Columns cell, arm, protocol, seed, and each metric that any of the cells has, METRICS first.

    NaN stands for a size class without objects, and for what a protocol does not give. Recall and figures per category
    (`bbox/AR100`, `bbox/AP-cat`) stay out of it.
    """
    results = results_frame(cells)
    wide = results.pivot(index="cell", columns="metric", values="value")
    names = results.drop_duplicates("cell")[list(_CELL_NAMES)]
    metrics = _columns(list(results["metric"].unique()))
    return names.join(wide[metrics], on="cell").reset_index(drop=True).rename_axis(columns=None)


def _columns(given: Sequence[str]) -> list[str]:
    known = [name for name in (*METRICS, *HEADLINES) if name in given]
    return list(dict.fromkeys([*known, *(name for name in given if "/" not in name)]))


def _metrics_of(table: pd.DataFrame, suffix: str = "") -> list[str]:
    """The metrics of a table of cells, or with " mean" of one of arms, in its order."""
    names = [name.removesuffix(suffix) for name in table.columns if name.endswith(suffix)]
    return [name for name in names if name not in _CELL_NAMES]


def arm_table(cells: pd.DataFrame, baselines: Sequence[str], holes: Sequence[Hole] = ()) -> pd.DataFrame:
    """One row per arm and protocol, in the order of their first cells; those of which all cells are holes at the end.

    Columns: arm, protocol, n (seeds that there are), of (seeds that should be there), and for each metric `… mean`,
    `… std` (of the sample, NaN for one seed) and for each of the arms `baselines` `… Δ baseline`, the mean's difference
    to its mean in the same protocol (NaN if it is not there).
    """
    axes, metrics = ["arm", "protocol"], _metrics_of(cells)
    lost = pd.DataFrame([(h.arm, h.protocol) for h in holes], columns=axes)
    wanted = pd.concat([cells[axes], lost]).groupby(axes, sort=False).size()
    grouped = cells.groupby(axes, sort=False)
    figures = {f"{m} mean": grouped[m].mean() for m in metrics} | {f"{m} std": grouped[m].std(ddof=1) for m in metrics}
    arms = pd.DataFrame({"n": grouped.size(), **figures}).reindex(wanted.index)
    arms = arms.assign(n=arms["n"].fillna(0).astype(int), of=wanted).reset_index()
    for metric in metrics:
        for baseline in baselines:
            base = arms[arms["arm"] == baseline].set_index("protocol")[f"{metric} mean"]
            arms[f"{metric} Δ {baseline}"] = arms[f"{metric} mean"] - arms["protocol"].map(base)
    figures_of_each = ("mean", "std", *(f"Δ {baseline}" for baseline in baselines))
    by_metric = [f"{metric} {figure}" for metric in metrics for figure in figures_of_each]
    return arms[[*axes, "n", "of", *by_metric]]


def hole_notes(cells: int, holes: Sequence[Hole]) -> list[str]:
    """What has to stand under a table with holes: that there are some, and each one's reason."""
    if not holes:
        return []
    first = (
        f"Incomplete: {cells} of {cells + len(holes)} cells. A mean is over the seeds that there are (n of all), and "
        "differences between arms may rest on different seeds."
    )
    return [first, *(f"Hole: {hole.cell} has no figures: {hole.reason}" for hole in holes)]


def printed_cells(cells: pd.DataFrame, holes: Sequence[Hole] = ()) -> pd.DataFrame:
    """As text: one decimal, a dash for what does not exist; a hole is a row of dashes."""
    lost = pd.DataFrame([(h.cell, h.arm, h.protocol, str(h.seed)) for h in holes], columns=list(_CELL_NAMES))
    metrics = _metrics_of(cells)
    shown = cells[list(_CELL_NAMES)].astype(str).assign(**{m: cells[m].map(_number) for m in metrics})
    return pd.concat([shown, lost.assign(**dict.fromkeys(metrics, ABSENT))], ignore_index=True)


def printed_arms(
    arms: pd.DataFrame, baselines: Sequence[str], standings: Mapping[tuple[str, str, str], Standing] | None = None
) -> pd.DataFrame:
    """As text: mean ± std and the differences to the baselines of HEADLINES, the means of the rest.

    `n` is the number of seeds, or "2 of 3" where some are holes. `standings` (eval.standing) are shown by their marks.
    """
    shown = arms[["arm", "protocol"]].astype(str)
    shown["n"] = [str(n) if n == of else f"{n} of {of}" for n, of in zip(arms["n"], arms["of"], strict=True)]
    standings = standings or {}
    for metric in _metrics_of(arms, " mean"):
        label = HEADLINES.get(metric)
        if label:
            rows = zip(arms["arm"], arms["protocol"], arms[f"{metric} mean"], arms[f"{metric} std"], strict=True)
            shown[label] = [
                _number(mean) + _spread(std) + _mark(standings.get((arm, protocol, metric)))
                for arm, protocol, mean, std in rows
            ]
            for baseline in baselines:
                signed = arms[f"{metric} Δ {baseline}"].map(_signed)
                shown[f"{label.removesuffix(' AP')} Δ {baseline}"] = signed.where(arms["arm"] != baseline, ABSENT)
        else:
            shown[label_of(metric)] = arms[f"{metric} mean"].map(_number)
    return shown


def _number(value: float) -> str:
    return ABSENT if pd.isna(value) else f"{value:.1f}"


def _signed(value: float) -> str:
    return ABSENT if pd.isna(value) else f"{value:+.1f}"


def _spread(std: float) -> str:
    return "" if pd.isna(std) else f" ± {std:.1f}"


def _mark(standing: Standing | None) -> str:
    return f" {MARKS[standing]}" if standing else ""


def write_tables(
    folder: Path, title: str, cells: pd.DataFrame, arms: pd.DataFrame, baselines: Sequence[str], notes: Sequence[str],
    holes: Sequence[Hole] = (), further: Mapping[str, pd.DataFrame] | None = None,
    standings: Mapping[tuple[str, str, str], Standing] | None = None, frames: Mapping[str, pd.DataFrame] | None = None,
) -> None:  # fmt: skip
    """Write cells.csv, arms.csv, ap_table.json, ap_table.md, ap_table.html, and ap_summary.md with the APs alone.

    `further` tables of text stand behind those of arms and cells, each under its title. `notes` stand under the tables
    of ap_table.*, those of the `holes` before them; cells.csv has the cells that there are. `frames` of numbers are
    written to ap_table.json too, each by its name.
    """
    notes, further = [*hole_notes(len(cells), holes), *notes], further or {}
    cells.to_csv(folder / "cells.csv", index=False, float_format="%.4f")
    arms.to_csv(folder / "arms.csv", index=False, float_format="%.4f")
    record: dict[str, Any] = {
        "title": title,
        "baselines": list(baselines),
        "arms": json.loads(arms.to_json(orient="records")),
        "cells": json.loads(cells.to_json(orient="records")),
        **{name: json.loads(frame.to_json(orient="records")) for name, frame in (frames or {}).items()},
        "holes": [asdict(hole) for hole in holes],
        "notes": notes,
    }
    shown_arms, shown_cells = printed_arms(arms, baselines, standings), printed_cells(cells, holes)
    record["printed"] = shown_arms.to_dict(orient="records")  # for who shows the table without pandas
    record["further"] = {title: table.to_dict(orient="records") for title, table in further.items()}
    write_text(folder / "ap_table.json", json.dumps(record, indent=2) + "\n")
    write_text(folder / "ap_summary.md", as_markdown(_summary(shown_arms)) + "\n")
    parts = [f"# {title}", "", as_markdown(shown_arms)]
    for heading, table in {"Cells": shown_cells, **further}.items():
        parts += ["", f"## {heading}", "", as_markdown(table)]
    write_text(folder / "ap_table.md", "\n".join([*parts, "", *(f"- {note}" for note in notes)]) + "\n")
    tables = (("By arm", shown_arms), ("By cell", shown_cells), *further.items())
    write_text(folder / "ap_table.html", as_page(title, tables, notes))


def _summary(shown_arms: pd.DataFrame) -> pd.DataFrame:
    names = [name for name in shown_arms.columns if name in HEADLINES.values() or "Δ" in name]
    return shown_arms[["arm", "protocol", "n", *names]]
