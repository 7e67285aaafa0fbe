"""`pcd export`: a pre-trained backbone, its model card and its other files, out of the store and into a folder."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any, Final

from flows.run_record import RunRecord
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
    folder = Path(record.folder)
    if not (folder / "backbone.safetensors").exists():  # without protocols, the run's last pre-training lies there
        spec = _read(folder / "spec.json", record)
        stage = f"pretrain:{_choose(spec['settings']['cells'], cell, record.name)}"
        # The spec's own paths may be another machine's, where the table was made.
        folder = folder.parents[1] / "pretrain" / record.stages[stage]
    stored: dict[str, Any] = _read(folder / "manifest.json", record)["files"]
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


def _choose(cells: list[dict[str, Any]], cell: str | None, benchmark: str) -> str:
    """The name of the pre-training behind `cell`."""
    behind: dict[str, str] = {c["cell"]: c["pretrain"] for c in cells if c["pretrain"]}
    names = sorted(set(behind.values()))
    if cell is not None:
        if cell not in behind and cell not in names:
            raise unknown_name("pre-trained cell", cell, [*names, *behind])
        return behind.get(cell, cell)
    if len(names) != 1:
        told = f"has {len(names)} pre-trained backbones; choose by --cell: {', '.join(names)}"
        raise PCDError(f"benchmark {benchmark} {told if names else 'has no pre-trained backbone'}")
    return names[0]


def _read(path: Path, record: RunRecord) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        raise PCDError(f"{path} is no longer there; run the benchmark {record.name} again") from None
    return content
