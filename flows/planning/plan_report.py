"""What a run would do: each stage with its state, why it runs, what it needs and what starts it, as plain data."""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from flows.planning.costs import CostModel, Estimate
from flows.planning.hardware import Hardware
from flows.planning.selection import select
from flows.planning.stage_work import Images
from flows.planning.stages import Plan, Stage
from flows.store.manifest import read_manifest
from flows.store.store import Store
from flows.store.why import Difference, explain, in_words

__all__ = ["PlanReport", "StageReport", "Total", "as_json", "command_of", "report_plan"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StageReport:
    stage: Stage
    state: str
    """cached, remote, resumable or to run."""
    step: int | None
    """Where a resumable one goes on."""
    why: tuple[str, ...]
    """For one that runs though the store has another of its name: what differs. Empty for one that never ran."""
    estimate: Estimate
    disk_mb: float
    """Of the stored stage by its manifest, else as estimated."""
    spec: Path
    """Written when the stage begins."""

    @property
    def runs(self) -> bool:
        return self.state in ("resumable", "to run")


@dataclass(frozen=True, slots=True, kw_only=True)
class Total:
    """Over the stages that run."""

    stages: int
    seconds: float
    """From beginning to end, `runtime.parallel` stages at a time."""
    low: float
    high: float
    is_measured: bool
    """By equal work on equal hardware throughout."""
    memory_mb: float
    """The largest."""
    disk_mb: float
    """The sum."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanReport:
    plan: Plan
    stages: tuple[StageReport, ...]
    total: Total
    hardware: Hardware
    images: Images

    @property
    def counts(self) -> dict[str, int]:
        """State to number of stages."""
        states = [report.state for report in self.stages]
        return {state: states.count(state) for state in dict.fromkeys(states)}


def report_plan(
    whole: Plan, store: Store, *, only: Sequence[str] = (), from_stage: str | None = None, fresh: bool = False
) -> PlanReport:
    """Arguments as of flows.planning.selection.select, which says what raises."""
    plan, anew = select(whole, only=only, from_stage=from_stage, fresh=fresh)
    model = CostModel(plan)
    stages = tuple(_report(stage, store, model, stage.id in anew, plan.benchmark.name) for stage in plan.stages)
    total = _total([report for report in stages if report.runs], plan)
    return PlanReport(plan=plan, stages=stages, total=total, hardware=model.hardware, images=model.images)


def _report(stage: Stage, store: Store, model: CostModel, anew: bool, benchmark: str) -> StageReport:
    found = store.state(stage)
    state, step, why = found.name, found.step, tuple[str, ...]()
    if anew:
        state, step, why = (
            "to run",
            None,
            ("computed anew, as asked for",) if found.name in ("cached", "remote") else (),
        )
    elif state in ("resumable", "to run") and not stage.missing:
        reasons = explain(stage, store, benchmark)
        why = tuple(in_words(difference) for difference in reasons if _says_something(difference))
    estimate, place = model.estimate(stage, step or 0), store.root / stage.kind / f".work-{stage.key}"
    disk = estimate.disk_mb
    if state == "cached":
        place = store.folder(stage.kind, stage.key)
        manifest = read_manifest(place) or {"files": {}}
        disk = sum(file["bytes"] for file in manifest["files"].values()) / 1e6
    return StageReport(
        stage=stage, state=state, step=step, why=why, estimate=estimate, disk_mb=disk, spec=place / "spec.json"
    )


def _says_something(difference: Difference) -> bool:
    """A table's own list of cells and its notes only repeat what changed in front of it."""
    return difference.what != "never ran" and (difference.what, difference.name) not in (
        ("setting", "cells"),
        ("setting", "notes"),
    )


def _total(running: Sequence[StageReport], plan: Plan) -> Total:
    parallel, inputs = plan.benchmark.runtime.parallel, {r.stage.id: r.stage.inputs.values() for r in running}
    ends = {
        figure: _end({r.stage.id: getattr(r.estimate, figure) for r in running}, inputs, parallel)
        for figure in ("seconds", "low", "high")
    }
    return Total(
        stages=len(running),
        is_measured=all(r.estimate.time_basis == "measured" for r in running),
        memory_mb=max((r.estimate.memory_mb for r in running), default=0.0),
        disk_mb=sum(r.disk_mb for r in running),
        **ends,
    )


def _end(seconds: Mapping[str, float], inputs: Mapping[str, Iterable[str]], parallel: int) -> float:
    """When the last stage ends, if each begins as soon as its inputs are there and one of `parallel` places is free."""
    waiting, ended, now = dict(seconds), set[str](), 0.0
    running: list[tuple[float, str]] = []
    needs = {stage: set(inputs[stage]) & seconds.keys() for stage in waiting}
    while waiting or running:
        ready = (stage for stage in waiting if needs[stage] <= ended)
        for stage in list(islice(ready, parallel - len(running))):
            heapq.heappush(running, (now + waiting.pop(stage), stage))
        now, stage = heapq.heappop(running)
        ended.add(stage)
    return now


def command_of(r: StageReport, plan: Plan) -> list[str]:
    """What starts the stage, by hand as well."""
    from flows.supervision.stage_command import stage_command  # late: most plans are looked at without commands

    return stage_command(r.stage, r.spec, plan.benchmark.runtime)


def as_json(report: PlanReport) -> dict[str, Any]:
    """Source files of the keys are left out: they are the same for all stages of a kind."""
    return {
        "settings": report.plan.benchmark.model_dump(mode="json"),
        "hardware": asdict(report.hardware),
        "images": asdict(report.images),
        "missing": list(report.plan.missing),
        "total": asdict(report.total),
        "stages": [
            {
                "id": r.stage.id, "kind": r.stage.kind, "labels": r.stage.labels, "key": r.stage.key,
                "state": r.state, "step": r.step, "why": list(r.why), "missing": list(r.stage.missing),
                "estimate": asdict(r.estimate), "disk_mb": r.disk_mb, "command": command_of(r, report.plan),
                "settings": r.stage.settings, "inputs": r.stage.inputs, "files": r.stage.parts["files"],
            }
            for r in report.stages
        ],
    }  # fmt: skip
