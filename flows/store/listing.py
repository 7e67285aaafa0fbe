"""What lies in the store, here and in its remote: finished stages, and work that was interrupted."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from flows.store.store import Store
from pcd.checkpoint_step import checkpoint_step
from pcd.errors import PCDError

__all__ = ["Stored", "age", "choose", "list_store"]


@dataclass(frozen=True, slots=True)
class Stored:
    kind: str
    id: str
    key: str
    where: Literal["local", "remote", "both", "work"]
    """Work is here alone, and not finished."""
    bytes: int
    finished: float
    """Unix seconds; of work, when it was last written to."""
    benchmark: str | None
    """That computed it; others may use it as well."""
    step: int | None
    """Of the newest checkpoint, for work that tells."""
    folder: Path | None
    manifest: dict[str, Any] | None

    def describe(self) -> dict[str, Any]:
        """As JSON, without the manifest."""
        names = ("kind", "id", "key", "where", "bytes", "finished", "benchmark", "step")
        return {name: getattr(self, name) for name in names} | {"folder": str(self.folder) if self.folder else None}


def list_store(store: Store, *, with_remote: bool = True) -> list[Stored]:
    """The newest last. Raises UnreachableError or PCDError if there is a remote and it cannot be asked."""
    local = {(folder.parent.name, folder.name): (folder, manifest) for folder, manifest in store.manifests()}
    remote = store.exchange.remote if store.exchange is not None and with_remote else None
    there = {(kind, key) for kind, keys in remote.keys().items() for key in keys} if remote is not None else set()
    rows = [
        _finished(kind, manifest, "both" if (kind, key) in there else "local", folder)
        for (kind, key), (folder, manifest) in local.items()
    ]
    if remote is not None:
        fetched = remote.manifests(sorted(there - local.keys()))
        rows += [_finished(kind, manifest, "remote", None) for (kind, _), manifest in fetched.items()]
    rows += [_work(folder) for folder in store.root.glob("*/.work-*")]
    return sorted(rows, key=lambda row: (row.finished, row.key))


def _finished(
    kind: str, manifest: dict[str, Any], where: Literal["local", "remote", "both"], folder: Path | None
) -> Stored:
    length = sum(file["bytes"] for file in manifest["files"].values())
    finished = manifest.get("finished") or (folder.stat().st_mtime if folder else 0.0)
    name, key, benchmark = manifest["stage"], manifest["key"], manifest.get("benchmark")
    return Stored(kind, name, key, where, length, finished, benchmark, None, folder, manifest)


def _work(folder: Path) -> Stored:
    sizes = [path.stat() for path in folder.rglob("*") if path.is_file()]
    try:
        name = str(json.loads((folder / "spec.json").read_text())["stage"])
    except (OSError, ValueError, KeyError, TypeError):
        name = folder.parent.name
    last = max((size.st_mtime for size in sizes), default=folder.stat().st_mtime)
    length, key = sum(size.st_size for size in sizes), folder.name.removeprefix(".work-")
    kind = folder.parent.name
    return Stored(kind, name, key, "work", length, last, None, checkpoint_step(folder), folder, None)


def choose(rows: Sequence[Stored], name: str) -> Stored:
    """By a key, its beginning (4 digits or more), or a stage's id; of several finished ones of one id the newest.

    Raises PCDError with the nearest name there is.
    """
    finished = [row for row in rows if row.where != "work"] or list(rows)
    by_key = {row.key: row for row in finished if len(name) >= 4 and row.key.startswith(name)}
    if len(by_key) > 1:
        raise PCDError(f'"{name}" begins {len(by_key)} keys: {", ".join(key[:16] for key in by_key)}; give more of it')
    matching = [*by_key.values()] or [row for row in finished if row.id == name or row.id.partition(":")[2] == name]
    if not matching:
        nearest = get_close_matches(name, [*{row.id for row in rows}, *(row.key[:12] for row in rows)], n=1, cutoff=0.5)
        hint = f'did you mean "{nearest[0]}"?' if nearest else "there is none like it;"
        raise PCDError(f'no stored stage or key "{name}": {hint} `pcd store ls` lists them')
    return matching[-1]


def age(row: Stored) -> float:
    """Seconds."""
    return max(0.0, time.time() - row.finished)
