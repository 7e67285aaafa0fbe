"""A stage's key: a hash of everything that can change its result, and of nothing else."""

import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grimp

__all__ = ["canonical_json", "source_fingerprint", "stage_key"]

_ROOT = Path(__file__).parent.parent


def stage_key(settings: Mapping[str, Any], inputs: Mapping[str, str], files: Mapping[str, str], module: str) -> str:
    """SHA-256 over resolved settings, keys of the stages read, hashes of input files and the source that computes it.

    The source is that of `module` and of every module of ours it imports, not the git commit: a commit to another part
    leaves the stored result good.
    """
    parts = {"settings": settings, "inputs": inputs, "files": files, "source": source_fingerprint(module)}
    return hashlib.sha256(canonical_json(parts).encode()).hexdigest()


def canonical_json(data: Any) -> str:
    """One text for equal data, on every machine: sorted keys, no spaces, no NaN."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False, default=str)


@functools.cache
def source_fingerprint(module: str) -> str:
    """SHA-256 over the files of `module` and of all that it imports within pcd and eval, and of their templates."""
    modules = {module, *_import_graph().find_upstream_modules(module)} - _data_modules()
    # A package's __init__ runs with every import of its modules.
    modules |= {".".join(name.split(".")[:i]) for name in modules for i in range(1, name.count(".") + 1)}
    digest = hashlib.sha256()
    for path in sorted(file for name in modules for file in _files_of(name)):
        digest.update(str(path.relative_to(_ROOT)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _data_modules() -> set[str]:
    """The teachers' entries: what is computed with of one stands in its stage's settings, so their text may change."""
    return _import_graph().find_descendants("pcd.teachers.published")


@functools.cache
def _import_graph() -> grimp.ImportGraph:
    return grimp.build_graph("pcd", "eval", cache_dir=None)


def _files_of(module: str) -> list[Path]:
    path = _ROOT / module.replace(".", "/")
    if path.is_dir():
        return [path / "__init__.py", *path.glob("*.j2")]
    return [path.with_suffix(".py")]
