"""From a benchmark's settings to its stages, each with a key; without torch, MLflow or Prefect."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from eval.probes.settings import PROBES, FeaturesSettings
from eval.references import published
from flows.planning.input_files import InputFiles, data_files, supervised_files, teacher_files
from flows.planning.labelled_sets import data_stage, places, set_of, without_places
from flows.planning.matrix import Cell, changed
from flows.planning.stages import CELL_KINDS, MODULES, Plan, StageKind, StageList
from flows.planning.table_notes import table_notes
from flows.settings import Benchmark
from pcd.arms.weights import SUPERVISED_WEIGHTS
from pcd.settings import of_arm
from pcd.teachers.registry import TEACHERS

__all__ = ["make_plan"]

_SAID_OF_WEIGHTS: Final = {
    "url", "obtain", "title", "megabytes", "reported_hash", "accuracy", "source", "unverified", "mean", "std",
}  # fmt: skip
"""Fields of a published file's entry that change no tensor."""


def make_plan(benchmark: Benchmark) -> Plan:
    """All stages of a benchmark. The same settings and sources give the same ids and keys in every process.

    What is missing on this machine is named in the stages, and raises nothing.
    """
    stages, matrix = StageList(), benchmark.cells
    evaluations = {
        cell.id: changed(benchmark.protocols[cell.protocol], benchmark.overrides, benchmark.stage_of(cell))
        for cell in matrix
        if cell.protocol
    }
    if any(cell.pretrain for cell in matrix) or None in map(set_of, evaluations.values()):
        _add_data(stages, benchmark, None)
    if any(cell.pretrain or cell.arm == "teacher" for cell in matrix):
        _add_teacher(stages, benchmark)
    records = []
    for cell in matrix:
        if cell.backbone and cell.backbone not in stages:
            _add_backbone(stages, benchmark, cell)
            if cell.pretrain and benchmark.watch:
                _add_watch(stages, benchmark, cell)
        if cell.protocol:
            records.append(_add_evaluation(stages, benchmark, cell, evaluations[cell.id]))
    if records:
        _add_table(stages, benchmark, records)
    return Plan(benchmark, tuple(stages))


def _add_data(stages: StageList, benchmark: Benchmark, name: str | None) -> str:
    """The benchmark's `data`, or the one of its `sets` with this name; once."""
    settings = benchmark.sets[name] if name else benchmark.data
    if data_stage(name) not in stages:
        stages.add(
            "data", {"data": settings.model_dump(mode="json")}, suffix=name or "", keyed=without_places(settings),
            files=data_files(settings),
        )  # fmt: skip
    return data_stage(name)


def _places_in(benchmark: Benchmark, name: str | None) -> dict[str, Any] | None:
    return places(benchmark.sets[name] if name else benchmark.data)


def _add_teacher(stages: StageList, benchmark: Benchmark) -> None:
    # Where the file comes from may differ between machines, and what people say of it may be mended.
    entry = {k: v for k, v in TEACHERS[benchmark.teacher].describe().items() if k not in _SAID_OF_WEIGHTS}
    stages.add(
        "teacher", {"teacher": benchmark.teacher, "entry": entry},
        files=teacher_files(TEACHERS[benchmark.teacher], benchmark.teacher_file),
        runtime={"teacher_file": str(benchmark.teacher_file) if benchmark.teacher_file else None},
    )  # fmt: skip


def _add_backbone(stages: StageList, benchmark: Benchmark, cell: Cell) -> None:
    """What leaves the cell's backbone: a stage that brings it, or a pre-training run."""
    if not cell.pretrain:
        settings, files, at = _of_external_arm(benchmark, cell.arm)
        stages.add(
            "backbone", settings, suffix=cell.arm, inputs={"teacher": "teacher"} if cell.arm == "teacher" else {},
            files=files, runtime=at, labels={"arm": cell.arm},
        )  # fmt: skip
        return
    of_this_arm = of_arm(benchmark.pretrain, cell.arm)
    pretrain = changed(of_this_arm, benchmark.overrides, f"pretrain:{cell.pretrain}")
    snapshots = {"snapshot_epochs": benchmark.watch.every_epochs} if benchmark.watch else {}
    stages.add(
        "pretrain", {"pretrain": pretrain, "teacher": benchmark.teacher, "seed": cell.seed}, suffix=cell.pretrain,
        inputs={"data": "data", "teacher": "teacher"},
        runtime={**(_places_in(benchmark, None) or {}), **snapshots} or None,
        starts=f"pcd.arms.{of_this_arm.objective}", labels={"arm": cell.arm, "seed": str(cell.seed)},
    )  # fmt: skip


def _of_external_arm(benchmark: Benchmark, arm: str) -> tuple[dict[str, Any], InputFiles | None, dict[str, Any] | None]:
    """What its stage is to bring, the files that it reads, and where they lie."""
    settings = {"arm": arm, "student": benchmark.student_of(arm)}
    if arm == "teacher":
        return settings | {"teacher": benchmark.teacher}, None, None
    weights, own = SUPERVISED_WEIGHTS.get(benchmark.pretrain.student), benchmark.supervised_file
    entry = {k: v for k, v in weights.describe().items() if k not in _SAID_OF_WEIGHTS} if weights else None
    files, at = supervised_files(weights, own), {"supervised_file": str(own) if own else None}
    return settings | {"weights": entry}, files, at


def _add_watch(stages: StageList, benchmark: Benchmark, cell: Cell) -> None:
    """What evaluates the snapshots of the cell's pre-training run while it goes on."""
    assert benchmark.watch
    assert cell.pretrain
    watch, run = benchmark.watch, f"pretrain:{cell.pretrain}"
    watching = changed(benchmark.protocols[watch.protocol], {"watch": watch.changes}, "watch")
    by: StageKind = "probe" if watching["kind"] in PROBES else "finetune"
    snapshot: dict[str, Any] = {by: watching, "student": benchmark.student_of(cell.arm), "seed": cell.seed}
    snapshot |= {"features": _features_for(watching)} if by == "probe" else {}
    stages.add(
        "watch",
        {
            "module": MODULES[by], "evaluation": snapshot, "epochs": stages[run].settings["pretrain"]["epochs"],
            "every_epochs": watch.every_epochs,
        },
        suffix=cell.pretrain, inputs={"data": _add_data(stages, benchmark, set_of(watching)), "pretrain": run},
        beside=run, starts=MODULES[by], runtime=_places_in(benchmark, set_of(watching)),
        labels={"arm": cell.arm, "seed": str(cell.seed)},
    )  # fmt: skip


def _add_evaluation(
    stages: StageList, benchmark: Benchmark, cell: Cell, evaluation: Mapping[str, Any]
) -> dict[str, Any]:
    """The stage of the cell's figures and what it reads; returns what the table says of the cell."""
    assert cell.protocol
    labelled, student = set_of(evaluation), benchmark.student_of(cell.arm)
    backbone = {"backbone": cell.backbone} if cell.backbone else {}
    inputs = {"data": _add_data(stages, benchmark, labelled), **backbone}
    labels = {"arm": cell.arm, "protocol": cell.protocol, "seed": str(cell.seed)}
    if evaluation["kind"] in PROBES:
        features = _add_features(stages, benchmark, cell, evaluation, inputs)
        stages.add(
            "probe", {"probe": evaluation, "student": student, "seed": cell.seed}, suffix=cell.id,
            inputs={"features": features}, labels=labels,
        )  # fmt: skip
    else:
        stages.add(
            "finetune", {"finetune": evaluation, "student": student, "seed": cell.seed}, suffix=cell.id,
            inputs=inputs, runtime=_places_in(benchmark, labelled), labels=labels,
        )  # fmt: skip
    record = {"cell": cell.id, "arm": cell.arm, "protocol": cell.protocol, "seed": cell.seed}
    return record | {"pretrain": cell.pretrain, "set": labelled}


def _add_features(
    stages: StageList, benchmark: Benchmark, cell: Cell, probe: Mapping[str, Any], inputs: Mapping[str, str]
) -> str:
    """One stage for all probes of a backbone."""
    features = _features_for(probe)
    suffix = _features_name(cell, inputs, features)
    if f"features:{suffix}" not in stages:
        start = {} if "backbone" in inputs else {"seed": cell.seed}
        stages.add(
            "features", {"features": features, "student": benchmark.student_of(cell.arm), **start}, suffix=suffix,
            inputs=inputs, runtime=_places_in(benchmark, set_of(probe)), labels={"arm": cell.arm},
        )  # fmt: skip
    return f"features:{suffix}"


def _features_for(probe: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the stage `features` that a probe with these settings reads."""
    return FeaturesSettings(set=probe["set"], size=probe["size"]).model_dump(mode="json")


def _features_name(cell: Cell, inputs: Mapping[str, str], features: Mapping[str, Any]) -> str:
    """pcd.seed0.imagenet, or of crops of another size than usual pcd.seed0.imagenet.96px."""
    backbone = inputs["backbone"].partition(":")[2] if "backbone" in inputs else f"{cell.arm}.seed{cell.seed}"
    size = "" if features["size"] == FeaturesSettings().size else f".{features['size']}px"
    return f"{backbone}.{features['set']}{size}"


def _add_table(stages: StageList, benchmark: Benchmark, records: Sequence[Mapping[str, Any]]) -> None:
    labelled: list[str | None] = list(dict.fromkeys(record["set"] for record in records))
    inputs = [stage.id for stage in stages if stage.kind in ("pretrain", *CELL_KINDS)]
    inputs += map(data_stage, labelled)
    set_places = {name: (_places_in(benchmark, name) or {})["data_places"] for name in labelled if name}
    runtime = {**(_places_in(benchmark, None) or {}), **({"set_places": set_places} if set_places else {})}
    supervised = ["supervised"] if "supervised" in benchmark.arms else []
    baselines = list(dict.fromkeys([benchmark.baseline, *supervised]))
    settings = {
        "benchmark": benchmark.name,
        "baselines": baselines,
        "against": list(dict.fromkeys([benchmark.arms[0], *baselines])),
        "noise_ap": benchmark.noise_ap,
        "published": _published(benchmark),
        "cells": list(records),
        "notes": table_notes(benchmark),
    }
    stages.add("aggregate", settings, inputs={stage: stage for stage in inputs}, runtime=runtime or None)


def _published(benchmark: Benchmark) -> list[dict[str, Any]]:
    student = benchmark.pretrain.student
    found = [published(name, protocol.base, student) for name, protocol in benchmark.protocols.items()]
    return [row for rows in found for row in rows]
