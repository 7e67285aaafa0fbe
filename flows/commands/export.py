"""`pcd export`: a pre-trained backbone, its model card and its other files, out of the store and into a folder."""

import hashlib
import shutil
from pathlib import Path
from typing import Any, Final

from flows.planning.stages import is_cell
from flows.run_record import RunRecord
from flows.store.manifest import read_manifest
from flows.store.recorded import stage_folder
from pcd.errors import PCDError, unknown_name

__all__ = ["EXPORTED", "export_pretrained"]

EXPORTED: Final = (
    *("MODEL_CARD.md", "backbone.safetensors", "backbone_detectron2.pth"),
    *("receptive_field.png", "receptive_field.json"),
    *("similarity_maps.png", "similarity_maps.json"),
)
"""Those of a pre-training that are worth taking along; not every student has all of them."""


def export_pretrained(record: RunRecord, cell: str | None, destination: Path) -> list[Path]:
    """Copy the files of a finished benchmark's pre-training, and check each against the store's SHA-256.

    Args:
        cell: a cell (pcd.fpn_1x.seed0) or its pre-training (pcd.seed0); None if the benchmark has only one.

    Raises:
        PCDError: no such cell, several pre-trainings and none chosen, or files that are gone or damaged.
    """
    stage = f"pretrain:{_choose(record, cell)}"
    folder = stage_folder(record, stage)
    manifest = read_manifest(folder) if folder else None
    if folder is None or manifest is None:
        raise PCDError(f"{stage} is no longer in the store; run the benchmark {record.name} again")
    stored: dict[str, Any] = manifest["files"]
    destination.mkdir(parents=True, exist_ok=True)
    copied = []
    for name in [name for name in EXPORTED if name in stored]:
        temporary = destination / f".{name}.part"
        try:
            shutil.copyfile(folder / name, temporary)
            with temporary.open("rb") as file:
                whole = hashlib.file_digest(file, "sha256").hexdigest() == stored[name]["sha256"]
        except FileNotFoundError:
            whole = False
        if not whole:
            temporary.unlink(missing_ok=True)
            raise PCDError(f"{folder / name} is gone or damaged; run the benchmark {record.name} again")
        copied.append(temporary.replace(destination / name))
    return copied


def _choose(record: RunRecord, cell: str | None) -> str:
    """The name of the pre-training behind `cell`."""
    names = sorted(stage.partition(":")[2] for stage in record.stages if stage.startswith("pretrain:"))
    if cell is None:
        if len(names) != 1:
            told = f"has {len(names)} pre-trained backbones; choose by --cell: {', '.join(names)}"
            raise PCDError(f"benchmark {record.name} {told if names else 'has no pre-trained backbone'}")
        return names[0]
    cells = [stage.partition(":")[2] for stage in record.stages if is_cell(stage)]
    behind = {name: _pretraining_of(name) for name in cells if _pretraining_of(name) in names}
    if cell not in behind and cell not in names:
        raise unknown_name("pre-trained cell", cell, [*names, *behind])
    return behind.get(cell, cell)


def _pretraining_of(cell: str) -> str:
    """arm.protocol.seedN -> arm.seedN."""
    arm, _, seed = cell.split(".")
    return f"{arm}.{seed}"
