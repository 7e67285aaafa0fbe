"""What a plan consists of: stages, each with its key, and the list in which they come to be; without torch."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from flows.planning.input_files import InputFiles
from flows.planning.keys import key_of, key_parts
from flows.settings import Benchmark

__all__ = ["CELL_KINDS", "MODULES", "Plan", "Stage", "StageKind", "StageList", "is_cell", "with_all_behind"]

StageKind = Literal["teacher", "data", "pretrain", "watch", "backbone", "finetune", "features", "probe", "aggregate"]

MODULES: Final[Mapping[StageKind, str]] = {
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
"""What computes each kind."""

CELL_KINDS: Final = ("finetune", "probe")
"""Kinds of the stages that give cells their figures."""

_DISTRIBUTED: Final = ("pretrain", "finetune", "features")
_ON_DEVICE: Final = ("probe",)


def is_cell(stage_id: str) -> bool:
    return stage_id.partition(":")[0] in CELL_KINDS


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
        return tuple(stage for stage in self.stages if stage.kind in CELL_KINDS)

    @property
    def ends(self) -> tuple[Stage, ...]:
        """What it is run for: its cells, or without protocols its pre-training runs."""
        return self.cells or tuple(stage for stage in self.stages if stage.kind == "pretrain")


def with_all_behind(ids: Iterable[str], plan: Plan) -> list[Stage]:
    """The stages of these ids and all that they are computed from, however far behind, in the plan's order."""
    needed = set(ids)
    for other in reversed(plan.stages):  # inputs stand in front
        if other.id in needed:
            needed.update(other.inputs.values())
    return [other for other in plan.stages if other.id in needed]


class StageList:
    """Stages by id in the order in which they are added; inputs come before what reads them."""

    def __init__(self) -> None:
        self._stages: dict[str, Stage] = {}

    def __contains__(self, stage_id: str) -> bool:
        return stage_id in self._stages

    def __getitem__(self, stage_id: str) -> Stage:
        return self._stages[stage_id]

    def __iter__(self) -> Iterator[Stage]:
        return iter(self._stages.values())

    def add(
        self, kind: StageKind, settings: Mapping[str, Any], *, suffix: str = "",
        inputs: Mapping[str, str] | None = None, keyed: Mapping[str, Any] | None = None,
        files: InputFiles | None = None, runtime: dict[str, Any] | None = None, beside: str | None = None,
        starts: str | None = None, labels: Mapping[str, str] | None = None,
    ) -> str:  # fmt: skip
        """Add one with its key, and return its id.

        Args:
            suffix: what follows its kind in the id.
            keyed: what stands in the key for its settings, where that differs.
            files: what it reads from outside the store.
            starts: a module besides its own whose source counts, since only a setting names it.
        """
        inputs, files = dict(inputs or {}), files or InputFiles({})
        modules = [MODULES[kind], *filter(None, [starts])]
        keys = {name: self[of].key for name, of in inputs.items()}
        parts = key_parts(settings if keyed is None else keyed, keys, files.hashes, *modules)
        stage = Stage(
            id=kind + (f":{suffix}" if suffix else ""), kind=kind, module=MODULES[kind], settings=dict(settings),
            inputs=inputs, key=key_of(parts), parts=parts, labels=dict(labels or {}), distributed=kind in _DISTRIBUTED,
            on_device=kind in _ON_DEVICE, runtime=runtime, beside=beside, missing=files.missing,
        )  # fmt: skip
        self._stages[stage.id] = stage
        return stage.id
