"""From an AP figure back to what it comes from: fine-tuning, pre-training, teacher and data, by the stages' keys."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from flows.json_object import json_object
from flows.planning.stages import CELL_KINDS
from flows.run_record import RunRecord
from flows.store.manifest import command_again, misfits, read_manifest
from flows.store.recorded import stage_folder
from flows.store.store import store_root
from pcd.errors import PCDError, unknown_name
from pcd.teachers.registry import TEACHERS

__all__ = ["Origin", "Trace", "trace"]

_FIGURES: Final = (
    *("bbox/AP", "bbox/AP50", "bbox/AP75", "segm/AP", "segm/AP50", "segm/AP75"),
    *("top1", "top5", "knn_top1"),
)
_TABLE_DIGITS: Final = 1e-6


@dataclass(frozen=True, slots=True)
class Origin:
    """A stage, what is worth knowing of it, and the stages that it read."""

    stage: str
    kind: str
    key: str
    folder: str | None
    """None if the store no longer has it whole; then the trail ends here."""
    facts: dict[str, Any]
    command: list[str]
    """As it was started."""
    environment: dict[str, Any]
    """Git commit and packages, and all else that was written down of the machine."""
    inputs: dict[str, "Origin"]


@dataclass(frozen=True, slots=True)
class Trace:
    cell: str
    benchmark: str
    benchmark_key: str
    table: str | None
    """Folder of the table that the figures stand in; None for a pre-training, which has no figure."""
    figures: dict[str, float | None]
    """AP as in the result.json that fine-tuning left."""
    is_as_in_table: bool | None
    """Whether the table says the same."""
    origin: Origin


def trace(record: RunRecord, cell: str) -> Trace:
    """Of a cell such as pcd.smoke_fpn.seed0, or of a pre-training such as pcd.seed0.

    Raises PCDError for an unknown cell, or one whose stage is no longer in the store.
    """
    places = _places(record)
    known = {name.partition(":")[2]: name for name in places if name.partition(":")[0] in ("pretrain", *CELL_KINDS)}
    if cell not in known:
        raise unknown_name(f"cell of {record.name}", cell, known)
    origin = _walk(places[known[cell]], known[cell], places)
    if origin.folder is None:
        told = f"{origin.stage} {origin.key[:12]} of benchmark {record.name} is no longer whole in the store"
        raise PCDError(f"{told}; run the benchmark again, or fetch it (`pcd store show {origin.key[:12]}`)")
    table = Path(record.folder) if (Path(record.folder) / "ap_table.json").exists() else None
    figures = json_object(Path(origin.folder) / "result.json").get("metrics", {})
    return Trace(
        cell=cell,
        benchmark=record.name,
        benchmark_key=record.key,
        table=str(table) if table and origin.kind in CELL_KINDS else None,
        figures={name: figures[name] for name in _FIGURES if name in figures},
        is_as_in_table=_agrees(table, cell, figures) if table and origin.kind in CELL_KINDS else None,
        origin=origin,
    )


def _places(record: RunRecord) -> dict[str, Path]:
    """Stage id to where the benchmark's stage lies, or would lie."""
    whole = store_root()
    return {
        stage: stage_folder(record, stage) or whole / stage.partition(":")[0] / key
        for stage, key in record.stages.items()
    }


def _walk(folder: Path, stage: str, places: Mapping[str, Path]) -> Origin:
    kind, manifest = folder.parent.name, read_manifest(folder)
    if manifest is None or misfits(folder, manifest):
        return Origin(stage, kind, folder.name, None, {}, [], {}, {})
    read = {name: of for name, of in manifest["inputs"].items() if of in places}
    return Origin(
        stage=stage,
        kind=kind,
        key=manifest["key"],
        folder=str(folder),
        facts=_facts(kind, manifest, json_object(folder / "result.json")),
        command=command_again(manifest, folder),
        environment=manifest.get("environment") or {},
        inputs={name: _walk(places[of], of, places) for name, of in read.items()},
    )


def _facts(kind: str, manifest: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, Any]:
    """The few that a reader looks for; the manifest has the rest."""
    settings = manifest["settings"]
    match kind:
        case "teacher":
            entry = TEACHERS.get(settings["teacher"])
            facts = {
                "teacher": settings["teacher"],
                "url": entry.url if entry else None,
                "obtained from": result.get("source", result.get("url")),
                "sha256": result.get("sha256"),
                "licence": result.get("licence"),
                "hash was published": result.get("hash_was_published"),
                "noncommercial": result.get("noncommercial"),
            }
        case "data":
            names = ("name", "fingerprint", "pool", "train", "val")
            facts = {name: result.get(name) for name in names} | {"seed": settings["data"].get("seed")}
        case "pretrain":
            backbone = manifest["files"].get("backbone.safetensors", {})
            facts = {
                "seed": settings.get("seed"),
                "objective": settings["pretrain"].get("objective"),
                "student": settings["pretrain"].get("student"),
                "steps": result.get("steps"),
                "precision": result.get("precision"),
                "backbone.safetensors": backbone.get("sha256"),
            }
        case "backbone":
            names = ("source", "sha256", "licence", "hash_was_published", "noncommercial")
            facts = {"arm": settings["arm"], "student": settings["student"]}
            facts |= {name.replace("_", " "): result.get(name) for name in names}
        case _:
            rank = result.get("effective_rank_res5")
            facts = {
                "seed": settings.get("seed"),
                "iterations": result.get("iterations"),
                "backbone tensors matched": result.get("matched_tensors"),
                "effective rank of res5 before": rank if rank is None else round(rank, 1),
                "weights_sha256": result.get("weights_sha256"),
            }
    return {name: value for name, value in facts.items() if value is not None}


def _agrees(table: Path, cell: str, figures: Mapping[str, float | None]) -> bool:
    row = next((row for row in json_object(table / "ap_table.json").get("cells", []) if row.get("cell") == cell), None)
    return row is not None and all(
        row.get(name) == figures.get(name)
        or (
            row.get(name) is not None
            and figures.get(name) is not None
            and math.isclose(row[name], figures[name] or 0.0, abs_tol=_TABLE_DIGITS)
        )
        for name in _FIGURES
    )
