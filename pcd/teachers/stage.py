"""The teacher stage: fetch a registered checkpoint, verify it, load it once: `python -m pcd.teachers.stage SPEC`."""

import sys
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlparse

import torch

from pcd.errors import unknown_name
from pcd.stage import Spec, run_stage
from pcd.teachers.fetch import fetch_teacher
from pcd.teachers.load import load_entry
from pcd.teachers.registry import TEACHERS

__all__ = ["fetch_and_check"]


def fetch_and_check(spec: Spec) -> dict[str, Any]:
    """Leaves the publisher's file under its own name; nothing is left of one that cannot be loaded."""
    name: str = spec.settings["teacher"]
    if name not in TEACHERS:
        raise unknown_name("teacher", name, TEACHERS)
    entry = TEACHERS[name]
    spec.metrics.drop_after(0)
    if entry.noncommercial:
        print(f"licence: the weights of {name} are {entry.licence}, not for commercial use")
    path = spec.out / PurePosixPath(urlparse(entry.url).path).name
    sha256 = fetch_teacher(entry, path, spec.metrics.log)
    try:
        teacher = load_entry(entry, path)
        maps = teacher(torch.zeros(1, 3, 64, 64))
    except Exception:
        path.unlink()
        raise
    return {
        "file": path.name,
        "url": entry.url,
        "sha256": sha256,
        "hash_was_published": entry.sha256 is not None,
        "licence": entry.licence,
        "noncommercial": entry.noncommercial,
        "map_channels": maps.shape[1],
        "parameters": sum(p.numel() for p in teacher.parameters()),
    }


if __name__ == "__main__":
    sys.exit(run_stage(fetch_and_check))
