"""The teacher stage: fetch a registered checkpoint, verify it, convert it: `python -m pcd.teachers.stage SPEC`.

The publisher's file is unpickled here, in safe mode, and nowhere else: later stages read teacher.safetensors.
"""

import sys
from pathlib import Path
from typing import Any, Final

import torch

from pcd.errors import unknown_name
from pcd.stage import Spec, Stopped, run_stage
from pcd.teachers.fetch import fetch_teacher
from pcd.teachers.load import load_teacher
from pcd.teachers.registry import TEACHERS
from pcd.teachers.tensors import read_published, write_converted

__all__ = ["fetch_and_convert"]

_CONVERTED: Final = "teacher.safetensors"


def fetch_and_convert(spec: Spec) -> dict[str, Any]:
    """Leaves teacher.safetensors; the publisher's file is kept in PCD_HOME for the next time.

    Runtime: `home` (PCD_HOME), and perhaps `teacher_file` and `teacher_mirror`, sources before the entry's address.
    """
    name: str = spec.settings["teacher"]
    if name not in TEACHERS:
        raise unknown_name("teacher", name, TEACHERS)
    entry, converted = TEACHERS[name], spec.out / _CONVERTED
    spec.metrics.drop_after(0)
    for left in spec.out.glob(".tmp*"):  # safetensors' own, of a conversion that was killed
        left.unlink()
    if entry.noncommercial:
        print(f"licence: the weights of {name} are {entry.licence}, not for commercial use")

    def convert(path: Path, sha256: str) -> None:
        write_converted(entry, read_published(entry, path), converted, sha256)

    def progress(done: int, total: int) -> None:
        spec.metrics.log(done, total)
        if spec.stop_requested:  # what came stays, and the next try goes on from there
            raise Stopped

    fetched = fetch_teacher(
        entry,
        Path(spec.runtime["home"]),
        file=_path(spec, "teacher_file"),
        mirror=_path(spec, "teacher_mirror"),
        progress=progress,
        check=convert,
    )
    teacher = load_teacher(name, converted)
    maps = teacher(torch.zeros(1, 3, 64, 64))
    return {
        "file": converted.name,
        "source": fetched.source,
        "sha256": fetched.sha256,
        "hash_was_published": fetched.was_published,
        "hash_as_reported": fetched.as_reported,
        "licence": entry.licence,
        "noncommercial": entry.noncommercial,
        "map_channels": maps.shape[1],
        "parameters": sum(p.numel() for p in teacher.parameters()),
    }


def _path(spec: Spec, name: str) -> Path | None:
    value = spec.runtime.get(name)
    return Path(value) if value else None


if __name__ == "__main__":
    sys.exit(run_stage(fetch_and_convert))
