"""A stage's key: a hash of everything that can change its result, and of nothing else."""

import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grimp

__all__ = ["canonical_json", "changed_sources", "key_of", "key_parts", "source_files"]

_ROOT = Path(__file__).parents[2]


def key_parts(
    settings: Mapping[str, Any], inputs: Mapping[str, str], files: Mapping[str, str], *modules: str
) -> dict[str, Any]:
    """What a stage's result depends on, as plain data that can be compared part by part with those of an earlier run.

    Args:
        settings: resolved, without anything that differs between machines.
        inputs: the stage's name for each stage that it reads to that stage's key.
        files: name of each file or folder read from outside to a hash of its content.
        modules: what computes it. Their source and that of every module of ours they import count, not the git
            commit: a commit to another part leaves the stored result good.
    """
    return {
        "settings": dict(settings),
        "inputs": dict(inputs),
        "files": dict(files),
        "sources": dict(sorted(item for module in modules for item in source_files(module).items())),
    }


def key_of(parts: Mapping[str, Any]) -> str:
    """SHA-256 of the parts' canonical JSON."""
    return hashlib.sha256(canonical_json(parts).encode()).hexdigest()


def canonical_json(data: Any) -> str:
    """One text for equal data, on every machine: sorted keys, no spaces, no NaN."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False, default=str)


def changed_sources(sources: Mapping[str, str]) -> list[str]:
    """Those of a stage's source files, path to SHA-256, that are no longer as they were when it was planned."""
    return [name for name, was in sources.items() if not (_ROOT / name).exists() or _hash(_ROOT / name) != was]


@functools.cache
def source_files(module: str) -> Mapping[str, str]:
    """Path to SHA-256 of each file of `module`, of all that it imports within pcd and eval, and of their templates."""
    modules = {module, *_import_graph().find_upstream_modules(module)} - _data_modules()
    # A package's __init__ runs with every import of its modules.
    modules |= {".".join(name.split(".")[:i]) for name in modules for i in range(1, name.count(".") + 1)}
    files = {path.relative_to(_ROOT).as_posix(): path for name in modules for path in _files_of(name)}
    return {name: _known_hash(files[name]) for name in sorted(files)}


@functools.cache
def _known_hash(path: Path) -> str:
    return _hash(path)


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@functools.cache
def _data_modules() -> frozenset[str]:
    """The entries of teachers and arms, and the named protocols: what is computed with of one stands whole in its
    stage's settings.

    So their text may change, and others may join them.
    """
    published = _import_graph().find_descendants("pcd.teachers.published")
    return frozenset({*published, "pcd.arms.registry", "pcd.arms.weights", "eval.protocols"})


@functools.cache
def _import_graph() -> grimp.ImportGraph:
    return grimp.build_graph("pcd", "eval", cache_dir=None)


def _files_of(module: str) -> list[Path]:
    path = _ROOT / module.replace(".", "/")
    if path.is_dir():
        return [path / "__init__.py", *path.glob("*.j2")]
    return [path.with_suffix(".py")]
