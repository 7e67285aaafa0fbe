"""The cells of a finished benchmark as eval.verdict judges them: figures, weights, and what they rest on."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from eval.verdict import CellRun
from flows.planning.stages import is_cell
from flows.run_record import NOT_ASKED_FOR, RunRecord
from flows.store.recorded import finished_folder, roots_of, stage_folder
from flows.store.store import Store, open_store
from pcd.flat import flatten

__all__ = ["cell_folders", "cells_of", "fetch_stages", "read_cells"]

_COMPUTES: Final = ("pretrain", "finetune", "features", "probe")
"""Stages whose source, versions and hardware move an AP. What teacher and data leave is known by its content."""
_COMPUTING_PACKAGES: Final = frozenset(
    (
        *("torch", "torchvision", "timm", "detectron2", "numpy", "pillow", "pycocotools", "faster-coco-eval"),
        *("safetensors", "webdataset"),
    )
)


def fetch_stages(stages: Mapping[str, str], stores: Sequence[Store]) -> None:
    """Fetch what another machine has computed, or what was deleted here. The table is not among it: nobody judges it.

    Args:
        stages: stage id to key.
        stores: the first that has a stage, here or in its remote, gives it.
    """
    for stage, key in stages.items():
        kind = stage.partition(":")[0]
        if kind != "aggregate":
            any(store.fetch(kind, key) for store in stores)


def cells_of(record: RunRecord) -> list[CellRun]:
    """Those of a run; what was not asked for is no cell of it, and no hole."""
    fetch_stages(record.stages, [open_store(part) for part in dict.fromkeys((record.part, None))])
    holes = {stage: reason for stage, reason in record.holes.items() if reason != NOT_ASKED_FOR}
    return read_cells(record.stages, holes, roots_of(record))


def cell_folders(record: RunRecord) -> dict[str, Path]:
    """Cell to the folder of its evaluation, of those whose stage the store has."""
    folders = {stage.partition(":")[2]: stage_folder(record, stage) for stage in record.stages if is_cell(stage)}
    return {cell: folder for cell, folder in folders.items() if folder is not None}


def read_cells(stages: Mapping[str, str], holes: Mapping[str, str], roots: Sequence[Path]) -> list[CellRun]:
    """The cells of one run.

    Args:
        stages: stage id to key, as the run's record names them.
        holes: id of a cell's stage to the reason why the run has no result of it.
        roots: folders of stores, <root>/<kind>/<key>/; the first that has a stage counts.
    """
    cells = dict.fromkeys(stage for stage in (*stages, *holes) if is_cell(stage))
    return [_read_cell(stage, stages, holes, roots) for stage in cells]


def _read_cell(stage: str, stages: Mapping[str, str], holes: Mapping[str, str], roots: Sequence[Path]) -> CellRun:
    cell = stage.partition(":")[2]
    group = cell.rpartition(".")[0]
    if stage in holes:
        return CellRun(cell=cell, group=group, hole=holes[stage])
    try:
        chain = dict(_chain(stage, stages, roots))
        result = _read(chain[stage] / "result.json")
        basis = _basis(chain)
    except (OSError, ValueError, KeyError):
        return CellRun(cell=cell, group=group, hole="the store no longer has all of its stages")
    metrics, weights = result["metrics"], result.get("weights_sha256")
    return CellRun(cell=cell, group=group, metrics=metrics, weights_sha256=weights, basis=basis)


def _chain(stage: str, stages: Mapping[str, str], roots: Sequence[Path]) -> Iterator[tuple[str, Path]]:
    """The stage and all that it rests on, each with its folder. Raises KeyError or OSError if one is gone."""
    folder = finished_folder(roots, stage, stages[stage])
    if folder is None:
        raise FileNotFoundError(stages[stage])
    yield stage, folder
    for of in _read(folder / "manifest.json")["inputs"].values():
        yield from _chain(of, stages, roots)


def _basis(chain: Mapping[str, Path]) -> dict[str, dict[str, str]]:
    """eval.verdict.BASES of a cell. A value that is not the same in all of its stages is all of theirs."""
    found: dict[str, dict[str, set[str]]] = {
        base: {} for base in ("settings", "data", "source", "versions", "hardware")
    }

    def add(base: str, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            found[base].setdefault(name, set()).add(value if isinstance(value, str) else json.dumps(value))

    for stage, folder in chain.items():
        kind, manifest = stage.partition(":")[0], _read(folder / "manifest.json")
        parts, environment = manifest["parts"], manifest["environment"]
        add("settings", flatten(parts["settings"]))
        add("data", {f"{kind} {name}": value for name, value in parts["files"].items()})
        if kind in ("teacher", "data"):
            result = _read(folder / "result.json")
            add("data", {f"{kind} {name}": result[name] for name in ("fingerprint", "sha256") if name in result})
        if kind in _COMPUTES:
            add("source", parts["sources"])
            add("versions", {"Python": environment["python"], **_versions(environment)})
            add("hardware", {"device": _hardware_class(folder, environment)})
    return {base: {name: " + ".join(sorted(v)) for name, v in values.items()} for base, values in found.items()}


def _versions(environment: Mapping[str, Any]) -> dict[str, str]:
    packages: Mapping[str, str | None] = environment["packages"]
    return {name: version for name, version in packages.items() if name in _COMPUTING_PACKAGES and version}


def _hardware_class(folder: Path, environment: Mapping[str, Any]) -> str:
    """The kind of GPU that a stage ran on, or of CPU; how many there were changes rounding alone."""
    gpus: Sequence[str] = environment["gpus"]
    if gpus and _read(folder / "spec.json")["runtime"]["device"] != "cpu":
        return " + ".join(sorted({gpu.partition(",")[0].strip() for gpu in gpus}))
    return str(environment["processor"])


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content
