"""What the store has had of each stage: read once for a thousand questions, and anew when a stage came or went."""

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flows.store.manifest import read_manifest

__all__ = ["StoreIndex"]


class StoreIndex:
    def __init__(self, root: Path) -> None:
        self._root = root
        self._kinds: dict[str, _Kind] = {}

    def history(self, kind: str, stage_id: str) -> list[dict[str, Any]]:
        """Manifests of the finished stages of this id, without their files."""
        return self._read(kind).by_id.get(stage_id, [])

    def moved_aside(self, kind: str, key: str) -> Path | None:
        """The folder of a stage that was found damaged; of several the last."""
        return self._read(kind).aside.get(key)

    def _read(self, kind: str) -> "_Kind":
        folder = self._root / kind
        stamp = folder.stat().st_mtime_ns if folder.exists() else 0
        known = self._kinds.get(kind)
        if known is None or known.stamp != stamp:
            known = self._kinds[kind] = _Kind(stamp)
            for path in sorted(folder.glob("*")):
                if path.name.startswith(".damaged-"):
                    known.aside[path.name.split("-")[1]] = path
                elif path.name[0] != "." and (manifest := read_manifest(path)) is not None:
                    known.by_id[manifest["stage"]].append({"finished": path.stat().st_mtime, **manifest, "files": {}})
        return known


@dataclass(frozen=True, slots=True)
class _Kind:
    stamp: int
    """Time of change of its folder."""
    by_id: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    aside: dict[str, Path] = field(default_factory=dict)
