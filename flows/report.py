"""The report of a finished benchmark, gathered from its record and from what the store still has of it; no server."""

import shlex
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from eval.report.content import CellReport, Report, StageReport
from eval.report.page import write_report
from eval.report.table import ap_text, report_tables
from flows.home import report_path
from flows.json_object import json_object
from flows.planning.stages import is_cell
from flows.report_figures import in_order, report_figures
from flows.report_settings import report_settings
from flows.run_record import RunRecord
from flows.store.trace import Origin, Trace, trace
from pcd.errors import PCDError

__all__ = ["gather_report", "write_benchmark_report"]

_MOVES_RESULTS: Final = ("python", "processor", "gpus", "git_commit", "git_dirty")
"""Of an environment, what is worth a word where a stage's is not the benchmark's."""


def write_benchmark_report(record: RunRecord, path: Path | None = None) -> Path:
    """Write the report of a finished benchmark to `path`, or to its place under $PCD_HOME. Raises OSError if it cannot.

    What the store no longer has is named in the report, and no error.
    """
    path = path or report_path(record.name, record.key, record.part)
    write_report(path, gather_report(record))
    return path


def gather_report(record: RunRecord) -> Report:
    """All of it as plain data."""
    folder, missing = Path(record.folder), []
    table = json_object(folder / "ap_table.json") if record.has_table else {}
    if record.has_table and not table:
        missing.append(f"The AP table: ap_table.json is gone or damaged in {folder}; run the benchmark again.")
    traces, lost = _trace_all(record, bool(table))
    figures, undrawn = report_figures(record, table if record.has_table else None, traces)
    settings, unmarked = report_settings(record.settings)
    if not record.environment:
        unmarked.append("The environment: the benchmark's record does not name it.")
    return Report(
        title=f"Report of {record.name}",
        facts=_facts(record, len(traces)),
        missing=(*missing, *lost, *undrawn, *unmarked),
        tables=tuple(report_tables(table)),
        notes=tuple(table.get("notes", ())),
        figures=tuple(figures),
        cells=(*(_cell(record, of) for of in traces.values()), *_holes(record)),
        settings=settings,
        environment=dict(_flat_environment(record.environment)),
    )


# The parts, in the order of the page.


def _facts(record: RunRecord, cells: int) -> dict[str, str]:
    of = f"{cells} of {cells + len(record.holes)}" if record.holes else str(cells)
    facts = {
        "Benchmark": record.name,
        "Key": record.key[:12],
        "Finished": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(record.finished)),
        "Cells": of,
        "Commit": _commit(record.environment),
        "MLflow": record.mlflow_page,
        "Again": shlex.join(["pcd", "rerun", record.key[:12]]),
    }
    return {name: value for name, value in facts.items() if value}


def _commit(environment: Mapping[str, Any]) -> str:
    changed = " with uncommitted changes" if environment.get("git_dirty") else ""
    return f"{environment['git_commit'][:12]}{changed}" if environment.get("git_commit") else ""


def _trace_all(record: RunRecord, has_table: bool) -> tuple[dict[str, Trace], list[str]]:
    """The way back of each cell, or without protocols of each pre-training; a line for each that is lost or unlike."""
    found, lost = {}, []
    ends = [stage for stage in record.stages if is_cell(stage)]
    for stage in ends or [stage for stage in record.stages if stage.startswith("pretrain:")]:
        cell = stage.partition(":")[2]
        if stage in record.holes:
            continue
        try:
            found[cell] = trace(record, cell)
        except (PCDError, OSError, ValueError, KeyError) as error:
            lost.append(f"Cell {cell}: {error}.")
            continue
        if found[cell].is_as_in_table is False and has_table:
            lost.append(f"Cell {cell}: the table says something else than the stage that it comes from.")
    stages = {of.stage: of for way in found.values() for of in in_order(way.origin)}
    gone = [
        f"Stage {of.stage} ({of.key[:12]}): no longer whole in the store." for of in stages.values() if not of.folder
    ]
    return found, lost + gone


def _cell(record: RunRecord, of: Trace) -> CellReport:
    command = ["pcd", "trace", of.cell, record.part or record.key[:12]]
    stages = [_stage(record, origin) for origin in in_order(of.origin)]
    return CellReport(cell=of.cell, figures=ap_text(of.figures), trace=shlex.join(command), stages=tuple(stages))


def _stage(record: RunRecord, origin: Origin) -> StageReport:
    return StageReport(
        stage=origin.stage, key=origin.key, command=shlex.join(origin.command),
        differs=_differences(origin.environment, record.environment),
    )  # fmt: skip


def _differences(environment: Mapping[str, Any], of_benchmark: Mapping[str, Any]) -> str:
    """What a reader has to know of a stage that was computed at another time or place."""
    given = [name for name in _MOVES_RESULTS if name in environment and name in of_benchmark]
    other = [name for name in given if environment[name] != of_benchmark[name]]
    told = [f"{name} {environment[name]}" for name in other if name in ("python", "processor", "gpus")]
    told += [f"commit {_commit(environment)}"] if {"git_commit", "git_dirty"} & set(other) else []
    return ", ".join(told)


def _holes(record: RunRecord) -> list[CellReport]:
    return [
        CellReport(cell=stage.partition(":")[2], figures="", trace="", stages=(), hole=reason)
        for stage, reason in record.holes.items()
    ]


def _flat_environment(environment: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in environment.items():
        if isinstance(value, Mapping):
            yield from _flat_environment(value)
        elif isinstance(value, list):
            yield name.replace("_", " "), ", ".join(map(str, value)) or "none"
        else:
            yield name.replace("_", " "), "not known" if value is None else str(value)
