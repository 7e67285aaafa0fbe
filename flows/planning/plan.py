"""From a benchmark's settings to its stages, each with a key; without torch, MLflow or Prefect."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from eval.probes.settings import PROBES, FeaturesSettings
from eval.references import published
from flows.planning.input_files import InputFiles, data_files, supervised_files, teacher_files
from flows.planning.keys import key_of, key_parts
from flows.planning.labelled_sets import data_stage, places, set_of, without_places
from flows.planning.matrix import EXTERNAL_ARMS, Cell, changed
from flows.planning.table_notes import table_notes
from flows.settings import Benchmark, Watch
from pcd.arms.weights import SUPERVISED_WEIGHTS
from pcd.settings import of_arm
from pcd.teachers.registry import TEACHERS

__all__ = ["Plan", "Stage", "StageKind", "make_plan", "partial_aggregate"]

StageKind = Literal["teacher", "data", "pretrain", "watch", "backbone", "finetune", "features", "probe", "aggregate"]

_MODULES: dict[StageKind, str] = {
    "teacher": "pcd.teachers.stage",
    "data": "eval.prepare_data",
    "pretrain": "pcd.train",
    "watch": "eval.watch",
    "backbone": "pcd.arms.bring",
    "finetune": "eval.finetune",
    "features": "eval.probes.features",
    "probe": "eval.probes.probe",
    "aggregate": "eval.aggregate",
}

_CELLS: Final = ("finetune", "probe")
"""Kinds of the stages that give cells their figures."""

_SAID_OF_WEIGHTS: Final = {
    "url", "obtain", "title", "megabytes", "reported_hash", "accuracy", "source", "unverified", "mean", "std",
}  # fmt: skip
"""Fields of a published file's entry that change no tensor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One process to run, or to find in the store."""

    id: str
    """Readable and unique in its benchmark: pretrain:pcd.seed0."""
    kind: StageKind
    module: str
    """Started as `python -m module spec.json`."""
    settings: dict[str, Any]
    """Plain JSON data, resolved, for its spec. Part of the key but for the places of data on this machine."""
    inputs: dict[str, str]
    """The stage's name for an input to the id of the stage that leaves it."""
    key: str
    """SHA-256 over the canonical JSON of `parts`."""
    parts: dict[str, Any]
    """settings, inputs (name to key), files (name to hash), sources (path to SHA-256): see flows.planning.keys."""
    labels: dict[str, str]
    """arm, protocol, seed, where they apply."""
    distributed: bool = False
    """Whether torchrun may start it as several ranks."""
    on_device: bool = False
    """Whether one that is not distributed computes on a GPU, where there is one."""
    runtime: dict[str, Any] | None = None
    """What its spec's runtime holds besides the benchmark's own; no part of the key."""
    beside: str | None = None
    """The id of one of its inputs: it begins when that stage has begun, on a device of its own, and reads what it
    leaves meanwhile. Nothing depends on it, and its failure is none of the run's."""
    missing: tuple[str, ...] = ()
    """A line for each file or folder that it reads from outside and that is not there: what, where, what to do. The
    key is then no key of any result."""


@dataclass(frozen=True, slots=True)
class Plan:
    benchmark: Benchmark
    stages: tuple[Stage, ...]
    """In an order in which every stage stands behind its inputs."""

    @property
    def key(self) -> str:
        """The benchmark's identity: that of its last stage, which depends on all the others."""
        if self.has_table:
            return self.stages[-1].key
        return hashlib.sha256("".join(stage.key for stage in self.stages).encode()).hexdigest()

    @property
    def has_table(self) -> bool:
        """False for a benchmark without protocols, which pre-trains and no more."""
        return self.stages[-1].kind == "aggregate"

    @property
    def missing(self) -> tuple[str, ...]:
        """What has to be brought before all of it can run: see Stage.missing."""
        return tuple(line for stage in self.stages for line in stage.missing)

    @property
    def cells(self) -> tuple[Stage, ...]:
        return tuple(stage for stage in self.stages if stage.kind in _CELLS)

    @property
    def ends(self) -> tuple[Stage, ...]:
        """What it is run for: its cells, or without protocols its pre-training runs."""
        return self.cells or tuple(stage for stage in self.stages if stage.kind == "pretrain")


def make_plan(benchmark: Benchmark) -> Plan:
    """All stages of a benchmark. The same settings and sources give the same ids and keys in every process.

    What is missing on this machine is named in the stages, and raises nothing.
    """
    stages: dict[str, Stage] = {}

    def add(
        kind: StageKind, settings: Mapping[str, Any], *, suffix: str = "", inputs: Mapping[str, str] | None = None,
        keyed: Mapping[str, Any] | None = None, files: InputFiles | None = None, distributed: bool = False,
        on_device: bool = False, runtime: dict[str, Any] | None = None, beside: str | None = None,
        starts: str | None = None, **labels: str,
    ) -> str:  # fmt: skip
        inputs, stage_id = dict(inputs or {}), kind + (f":{suffix}" if suffix else "")
        keys, outside = {name: stages[of].key for name, of in inputs.items()}, files or InputFiles({})
        modules = [_MODULES[kind], *filter(None, [starts])]
        parts = key_parts(settings if keyed is None else keyed, keys, outside.hashes, *modules)
        stages[stage_id] = Stage(
            id=stage_id, kind=kind, module=_MODULES[kind], settings=dict(settings), inputs=inputs, key=key_of(parts),
            parts=parts, labels=labels, distributed=distributed, on_device=on_device, runtime=runtime,
            beside=beside,
            missing=outside.missing,
        )  # fmt: skip
        return stage_id

    def add_data(name: str | None) -> str:
        """The benchmark's `data`, or the one of its `sets` with this name."""
        settings = benchmark.sets[name] if name else benchmark.data
        stage_id = data_stage(name)
        if stage_id not in stages:
            add(
                "data", {"data": settings.model_dump(mode="json")}, suffix=name or "", keyed=without_places(settings),
                files=data_files(settings),
            )  # fmt: skip
        return stage_id

    def places_in(name: str | None) -> dict[str, Any] | None:
        return places(benchmark.sets[name] if name else benchmark.data)

    matrix, watch = benchmark.cells, benchmark.watch
    snapshots = {"snapshot_epochs": watch.every_epochs} if watch else {}
    pool_places = places(benchmark.data)
    evaluations = {
        cell.id: changed(benchmark.protocols[cell.protocol], benchmark.overrides, benchmark.stage_of(cell))
        for cell in matrix
        if cell.protocol
    }
    if any(cell.pretrain for cell in matrix) or None in map(set_of, evaluations.values()):
        add_data(None)
    if any(cell.pretrain or cell.arm == "teacher" for cell in matrix):
        # Where the file comes from may differ between machines, and what people say of it may be mended.
        entry = {k: v for k, v in TEACHERS[benchmark.teacher].describe().items() if k not in _SAID_OF_WEIGHTS}
        teacher = add(
            "teacher", {"teacher": benchmark.teacher, "entry": entry},
            files=teacher_files(TEACHERS[benchmark.teacher], benchmark.teacher_file),
            runtime={"teacher_file": str(benchmark.teacher_file) if benchmark.teacher_file else None},
        )  # fmt: skip

    cells: list[dict[str, Any]] = []
    for cell in matrix:
        cell_inputs = {"backbone": cell.backbone} if cell.backbone else {}
        student = benchmark.student_of(cell.arm)
        if cell.arm in EXTERNAL_ARMS and cell.backbone not in stages:
            settings, files, at = _of_external_arm(benchmark, cell.arm)
            sources = {"teacher": teacher} if cell.arm == "teacher" else {}
            add("backbone", settings, suffix=cell.arm, inputs=sources, files=files, runtime=at, arm=cell.arm)
        if cell.pretrain:
            stage_id = f"pretrain:{cell.pretrain}"
            if stage_id not in stages:
                of_this_arm = of_arm(benchmark.pretrain, cell.arm)
                pretrain = changed(of_this_arm, benchmark.overrides, stage_id)
                add(
                    "pretrain", {"pretrain": pretrain, "teacher": benchmark.teacher, "seed": cell.seed},
                    suffix=cell.pretrain, inputs={"data": "data", "teacher": teacher}, distributed=True,
                    runtime={**(pool_places or {}), **snapshots} or None, starts=f"pcd.arms.{of_this_arm.objective}",
                    arm=cell.arm, seed=str(cell.seed),
                )  # fmt: skip
                if watch:
                    watching = _watched_by(watch, benchmark)
                    by: StageKind = "probe" if watching["kind"] in PROBES else "finetune"
                    snapshot: dict[str, Any] = {by: watching, "student": student, "seed": cell.seed}
                    snapshot |= {"features": _features_for(watching)} if by == "probe" else {}
                    add(
                        "watch",
                        {
                            "module": _MODULES[by], "evaluation": snapshot, "epochs": pretrain["epochs"],
                            "every_epochs": watch.every_epochs,
                        },
                        suffix=cell.pretrain, inputs={"data": add_data(set_of(watching)), "pretrain": stage_id},
                        beside=stage_id, starts=_MODULES[by], runtime=places_in(set_of(watching)),
                        arm=cell.arm, seed=str(cell.seed),
                    )  # fmt: skip
        if cell.protocol:
            evaluation = evaluations[cell.id]
            labelled = set_of(evaluation)
            cell_inputs = {"data": add_data(labelled), **cell_inputs}
            if evaluation["kind"] in PROBES:
                features = _features_for(evaluation)
                suffix = _features_name(cell, cell_inputs, features)
                if f"features:{suffix}" not in stages:  # one for all probes of a backbone
                    start = {} if "backbone" in cell_inputs else {"seed": cell.seed}
                    add(
                        "features", {"features": features, "student": student, **start}, suffix=suffix,
                        inputs=cell_inputs, distributed=True, runtime=places_in(labelled), arm=cell.arm,
                    )  # fmt: skip
                add(
                    "probe", {"probe": evaluation, "student": student, "seed": cell.seed}, suffix=cell.id,
                    inputs={"features": f"features:{suffix}"}, on_device=True,
                    arm=cell.arm, protocol=cell.protocol, seed=str(cell.seed),
                )  # fmt: skip
            else:
                add(
                    "finetune", {"finetune": evaluation, "student": student, "seed": cell.seed}, suffix=cell.id,
                    inputs=cell_inputs, distributed=True, runtime=places_in(labelled),
                    arm=cell.arm, protocol=cell.protocol, seed=str(cell.seed),
                )  # fmt: skip
            record = {"cell": cell.id, "arm": cell.arm, "protocol": cell.protocol, "seed": cell.seed}
            cells.append(record | {"pretrain": cell.pretrain, "set": labelled})

    inputs = {stage.id: stage.id for stage in stages.values() if stage.kind in ("pretrain", *_CELLS)}
    labelled_sets: list[str | None] = list(dict.fromkeys(cell["set"] for cell in cells))
    inputs |= {stage: stage for stage in map(data_stage, labelled_sets)}
    set_places = {name: (places_in(name) or {})["data_places"] for name in labelled_sets if name}
    aggregate = {
        "benchmark": benchmark.name,
        "baselines": list(
            dict.fromkeys([benchmark.baseline, *(["supervised"] if "supervised" in benchmark.arms else [])])
        ),
        "noise_ap": benchmark.noise_ap,
        "published": _published(benchmark),
        "cells": cells,
        "notes": table_notes(benchmark),
    }
    if cells:
        runtime = {**(pool_places or {}), **({"set_places": set_places} if set_places else {})}
        add("aggregate", aggregate, inputs=inputs, runtime=runtime or None)
    return Plan(benchmark, tuple(stages.values()))


def _published(benchmark: Benchmark) -> list[dict[str, Any]]:
    student = benchmark.pretrain.student
    found = [published(name, protocol.base, student) for name, protocol in benchmark.protocols.items()]
    return [row for rows in found for row in rows]


def _watched_by(watch: Watch, benchmark: Benchmark) -> dict[str, Any]:
    return changed(benchmark.protocols[watch.protocol], {"watch": watch.changes}, "watch")


def _of_external_arm(benchmark: Benchmark, arm: str) -> tuple[dict[str, Any], InputFiles | None, dict[str, Any] | None]:
    """What its stage is to bring, the files that it reads, and where they lie."""
    settings = {"arm": arm, "student": benchmark.student_of(arm)}
    if arm == "teacher":
        return settings | {"teacher": benchmark.teacher}, None, None
    weights, own = SUPERVISED_WEIGHTS.get(benchmark.pretrain.student), benchmark.supervised_file
    entry = {k: v for k, v in weights.describe().items() if k not in _SAID_OF_WEIGHTS} if weights else None
    files, at = supervised_files(weights, own), {"supervised_file": str(own) if own else None}
    return settings | {"weights": entry}, files, at


def _features_for(probe: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the stage `features` that a probe with these settings reads."""
    return FeaturesSettings(set=probe["set"], size=probe["size"]).model_dump(mode="json")


def _features_name(cell: Cell, inputs: Mapping[str, str], features: Mapping[str, Any]) -> str:
    """pcd.seed0.imagenet, or of crops of another size than usual pcd.seed0.imagenet.96px."""
    backbone = inputs["backbone"].partition(":")[2] if "backbone" in inputs else f"{cell.arm}.seed{cell.seed}"
    size = "" if features["size"] == FeaturesSettings().size else f".{features['size']}px"
    return f"{backbone}.{features['set']}{size}"


def partial_aggregate(plan: Plan, holes: Mapping[str, str]) -> Stage | None:
    """The aggregate stage over the cells that there are, which names the others; its key is not the whole one's.

    Args:
        holes: stage id to the reason why it is not there, such as "failed: …". A stage without an entry of its own is a
            hole where one that it reads is, for the same reason.

    Returns:
        The plan's own aggregate stage if nothing is a hole; None if no cell is left, or the plan has no table.
    """
    if not plan.has_table:
        return None
    whole, reasons = plan.stages[-1], _with_those_behind(plan, holes)
    by_id = {stage.id: stage for stage in plan.stages}
    kept, lost = [], []
    for cell in whole.settings["cells"]:
        reason = reasons.get(_cell_stage(whole, cell["cell"]))
        kept += [cell] if reason is None else []
        lost += [] if reason is None else [cell | {"reason": reason}]
    if not (kept and lost):
        return whole if kept else None
    wanted = [_cell_stage(whole, cell["cell"]) for cell in kept]
    wanted += dict.fromkeys(data_stage(cell["set"]) for cell in kept)
    wanted += dict.fromkeys(f"pretrain:{cell['pretrain']}" for cell in kept if cell["pretrain"])
    inputs = {name: of for name, of in whole.inputs.items() if name in set(wanted)}
    settings = whole.settings | {"cells": kept, "holes": lost}
    parts = key_parts(settings, {name: by_id[of].key for name, of in inputs.items()}, {}, whole.module)
    return replace(whole, settings=settings, inputs=inputs, parts=parts, key=key_of(parts))


def _cell_stage(aggregate: Stage, cell: str) -> str:
    return next(stage for stage in (f"{kind}:{cell}" for kind in _CELLS) if stage in aggregate.inputs)


def _with_those_behind(plan: Plan, holes: Mapping[str, str]) -> dict[str, str]:
    """Every stage that is a hole, or reads one, to the reason: the first one's, with its id."""
    reasons, causes = dict(holes), {stage: f"{stage} {reason}" for stage, reason in holes.items()}
    for stage in plan.stages:
        for source in stage.inputs.values():
            if source in causes and stage.id not in causes:
                reasons[stage.id] = causes[stage.id] = causes[source]
    return reasons
