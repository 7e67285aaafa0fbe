"""From a benchmark's settings to its stages, each with a key; without torch, MLflow or Prefect."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from eval.data import MISSING, InputFiles, file_hash, input_files
from flows.home import home
from flows.keys import key_of, key_parts
from flows.settings import Benchmark
from pcd.settings import flat_settings
from pcd.teachers.pins import is_known_file, replaced_hash
from pcd.teachers.registry import TEACHERS

__all__ = ["Plan", "Stage", "StageKind", "make_plan"]

StageKind = Literal["teacher", "data", "pretrain", "finetune", "aggregate"]

_MODULES: dict[StageKind, str] = {
    "teacher": "pcd.teachers.stage",
    "data": "eval.prepare_data",
    "pretrain": "pcd.train",
    "finetune": "eval.finetune",
    "aggregate": "eval.aggregate",
}


_SAID_OF_A_TEACHER: Final = {
    "url", "obtain", "title", "megabytes", "reported_hash", "accuracy", "source", "unverified", "mean", "std",
}  # fmt: skip
"""Fields of a registry entry that change no tensor."""


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
    """settings, inputs (name to key), files (name to hash), sources (path to SHA-256): see flows.keys.key_parts."""
    labels: dict[str, str]
    """arm, protocol, seed, where they apply."""
    distributed: bool = False
    """Whether torchrun may start it as several ranks."""
    runtime: dict[str, Any] | None = None
    """What its spec's runtime holds besides the benchmark's own; no part of the key."""
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
        return tuple(stage for stage in self.stages if stage.kind == "finetune")


def make_plan(benchmark: Benchmark) -> Plan:
    """All stages of a benchmark. The same settings and sources give the same ids and keys in every process.

    What is missing on this machine is named in the stages, and raises nothing.
    """
    stages: dict[str, Stage] = {}

    def add(
        kind: StageKind, settings: Mapping[str, Any], *, suffix: str = "", inputs: Mapping[str, str] | None = None,
        keyed: Mapping[str, Any] | None = None, files: InputFiles | None = None, distributed: bool = False,
        runtime: dict[str, Any] | None = None,
        **labels: str,
    ) -> str:  # fmt: skip
        inputs, stage_id = dict(inputs or {}), kind + (f":{suffix}" if suffix else "")
        keys, outside = {name: stages[of].key for name, of in inputs.items()}, files or InputFiles({})
        parts = key_parts(settings if keyed is None else keyed, keys, outside.hashes, _MODULES[kind])
        stages[stage_id] = Stage(
            id=stage_id, kind=kind, module=_MODULES[kind], settings=dict(settings), inputs=inputs, key=key_of(parts),
            parts=parts, labels=labels, distributed=distributed, runtime=runtime, missing=outside.missing,
        )  # fmt: skip
        return stage_id

    pretrain, student = benchmark.pretrain.model_dump(mode="json"), benchmark.pretrain.student
    data_settings = {"data": benchmark.data.model_dump(mode="json")}
    data = add("data", data_settings, files=input_files(benchmark.data))
    if "pcd" in benchmark.arms:
        # Where the file comes from may differ between machines, and what people say of it may be mended.
        entry = {k: v for k, v in TEACHERS[benchmark.teacher].describe().items() if k not in _SAID_OF_A_TEACHER}
        teacher = add(
            "teacher", {"teacher": benchmark.teacher, "entry": entry}, files=_teacher_files(benchmark),
            runtime={"teacher_file": str(benchmark.teacher_file) if benchmark.teacher_file else None},
        )  # fmt: skip

    cells = []
    for arm in benchmark.arms:
        for seed in benchmark.seeds:
            cell_inputs, pretrained = {"data": data}, None
            if arm == "pcd":
                pretrained = f"{arm}.seed{seed}"
                cell_inputs["backbone"] = add(
                    "pretrain", {"pretrain": pretrain, "teacher": benchmark.teacher, "seed": seed}, suffix=pretrained,
                    inputs={"data": data, "teacher": teacher}, distributed=True, arm=arm, seed=str(seed),
                )  # fmt: skip
            for protocol, finetune in benchmark.protocols.items():
                cell = f"{arm}.{protocol}.seed{seed}"
                settings = {"finetune": finetune.model_dump(mode="json"), "student": student, "seed": seed}
                add(
                    "finetune", settings, suffix=cell, inputs=cell_inputs, distributed=True,
                    arm=arm, protocol=protocol, seed=str(seed),
                )  # fmt: skip
                cells.append({"cell": cell, "arm": arm, "protocol": protocol, "seed": seed, "pretrain": pretrained})

    inputs = {stage.id: stage.id for stage in stages.values() if stage.kind in ("finetune", "pretrain")}
    aggregate = {
        "benchmark": benchmark.name,
        "baseline": benchmark.baseline,
        "cells": cells,
        "notes": _notes(benchmark),
    }
    if cells:
        add("aggregate", aggregate, inputs={"data": data, **inputs})
    return Plan(benchmark, tuple(stages.values()))


def _teacher_files(benchmark: Benchmark) -> InputFiles:
    """SHA-256 of the user's own file; else of a pinned file that took another one's place, whose results are stale.

    An own file that is the one which would be fetched counts as that one.
    """
    replaced = replaced_hash(benchmark.teacher, home())
    fetched = InputFiles({"teacher": replaced} if replaced else {})
    if benchmark.teacher_file is None:
        return fetched
    try:
        sha256 = file_hash(benchmark.teacher_file)
    except OSError as error:
        line = f"teacher_file {benchmark.teacher_file} cannot be read ({error.strerror}); give the publisher's file"
        return InputFiles({"teacher": MISSING}, (line,))
    return fetched if is_known_file(TEACHERS[benchmark.teacher], sha256, home()) else InputFiles({"teacher": sha256})


def _notes(benchmark: Benchmark) -> list[str]:
    """What stands under the table: on whose word each of the method's settings rests."""
    marked: dict[str, list[str]] = {"abstract": [], "code": [], "ours": []}
    for name, (value, mark) in flat_settings(benchmark.pretrain).items():
        marked[mark].append(f"{name} {value}")
    sources = (
        ("abstract", "Settings that the paper's abstract states"),
        ("code", "Settings of the authors' released code (allo-rene/pcd@6b0ad4d)"),
        ("ours", "Settings of ours, where neither says or this profile departs from them"),
    )
    notes = [f"{text}: {', '.join(marked[mark])}." for mark, text in sources if marked[mark]]
    if "pcd" in benchmark.arms:
        entry = TEACHERS[benchmark.teacher]
        terms = "not for commercial use" if entry.noncommercial else "commercial use allowed"
        notes.append(f"Teacher: {entry.title}; licence of its weights {entry.licence}, {terms}.")
    if benchmark.data.kind == "shapes":
        notes.append("Data: the procedural set `shapes`; these AP values say nothing about COCO.")
    if len(benchmark.seeds) == 1:
        notes.append("One seed: differences between arms within the spread of seeds cannot be told from chance.")
    return notes
