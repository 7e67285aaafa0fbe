"""The store's copy behind an fsspec URL, which several machines share.

<url>/<kind>/<key>.json            the manifest, written last: without it nothing below is read
<url>/<kind>/<key>/<upload>/…      the files; <upload> is a hash of the manifest, so that two machines that computed the
                                   same stage never mix their files, and an upload that broke off goes on
<url>/<kind>/.lock-<key>           who computes the stage now (flows.store.remote_lock)
"""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from flows.planning.keys import canonical_json
from flows.store.manifest import sha256_of, whole_manifest
from flows.store.remote_files import RemoteFiles, UnreachableError
from pcd.os_errors import plain_os_errors

__all__ = ["DamagedError", "RemoteStore"]

_AT_ONCE: Final = 32  # files in one call: as many run side by side, where the file system can
_SNAPSHOT_SECONDS: Final = 10.0


class DamagedError(Exception):
    """What came from the remote is not what its manifest names. One line."""


class RemoteStore:
    """Methods raise what flows.store.remote_files.RemoteFiles raises."""

    def __init__(self, url: str, part: str = "") -> None:
        self.files = RemoteFiles(url, part)
        self._snapshot: tuple[float, dict[str, set[str]]] | None = None

    @property
    def name(self) -> str:
        return self.files.name

    def keys(self) -> dict[str, set[str]]:
        """Kind to the keys of its finished stages; asked for at most once in ten seconds."""
        now = time.monotonic()
        if self._snapshot is None or now - self._snapshot[0] > _SNAPSHOT_SECONDS:
            kinds = [name for name in self.files.names("") if not name.startswith(".")]
            names = {kind: self.files.names(kind) for kind in kinds}
            ends = ".json"
            found = {kind: {n.removesuffix(ends) for n in of if n.endswith(ends)} for kind, of in names.items()}
            self._snapshot = now, found
        return self._snapshot[1]

    def manifest(self, kind: str, key: str) -> dict[str, Any] | None:
        found = self.files.read(f"{kind}/{key}.json")
        manifest = None if found is None else whole_manifest(found)
        return manifest if manifest is not None and manifest["key"] == key else None

    def manifests(self, stages: Sequence[tuple[str, str]]) -> dict[tuple[str, str], dict[str, Any]]:
        """Of stages by kind and key; all at once."""
        found = self.files.read_all([f"{kind}/{key}.json" for kind, key in stages])
        whole = {stage: whole_manifest(found.get(f"{stage[0]}/{stage[1]}.json", b"")) for stage in stages}
        return {stage: manifest for stage, manifest in whole.items() if manifest is not None}

    def upload(
        self, folder: Path, kind: str, manifest: dict[str, Any], *, replace: bool = False,
        progress: Callable[[int], None] = lambda _: None,
    ) -> None:  # fmt: skip
        """Files first, manifest last. What is there whole stays, unless `replace` says that its content is damaged."""
        key = manifest["key"]
        there = self.manifest(kind, key)
        if there is not None and not replace and not self._lacking(kind, there):
            progress(sum(file["bytes"] for file in manifest["files"].values()))
            return
        lacking = list(manifest["files"]) if replace else self._lacking(kind, manifest)
        progress(sum(file["bytes"] for name, file in manifest["files"].items() if name not in lacking))
        place = _place(kind, manifest)
        for block in _blocks(lacking):
            self.files.put({f"{place}/{name}": folder / name for name in block})
            progress(sum(manifest["files"][name]["bytes"] for name in block))
        if still := self._lacking(kind, manifest):
            raise UnreachableError(f"{self.name} took {still[0]} and does not have it")
        self.files.write(f"{kind}/{key}.json", json.dumps(manifest, indent=2).encode() + b"\n")
        self._snapshot = None

    def fetch(
        self, kind: str, manifest: dict[str, Any], into: Path, progress: Callable[[int], None] = lambda _: None
    ) -> None:
        """All files of the manifest, each checked by its SHA-256. Those that an earlier fetch brought stay.

        Raises DamagedError, and then leaves nothing behind.
        """
        files, place = manifest["files"], _place(kind, manifest)
        lacking = [name for name, file in files.items() if sha256_of(into / name) != file["sha256"]]
        progress(sum(file["bytes"] for name, file in files.items() if name not in lacking))
        for block in _blocks(lacking):
            with plain_os_errors(into):
                for name in block:
                    (into / name).parent.mkdir(parents=True, exist_ok=True)
                self.files.get({f"{place}/{name}": into / name for name in block})
            for name in block:
                if sha256_of(into / name) != files[name]["sha256"]:
                    shutil.rmtree(into)
                    raise DamagedError(f"{name} of {manifest['stage']} is gone or damaged in {self.name}")
            progress(sum(files[name]["bytes"] for name in block))

    def damaged_files(
        self, kind: str, manifest: dict[str, Any], progress: Callable[[int], None] = lambda _: None
    ) -> list[str]:
        """As flows.store.manifest.damaged_files; reads every byte over the network, and writes none."""
        damaged, place = self._lacking(kind, manifest), _place(kind, manifest)
        for name, file in manifest["files"].items():
            if name not in damaged and self.files.sha256(f"{place}/{name}") != file["sha256"]:
                damaged.append(name)
            progress(file["bytes"])
        return damaged

    def _lacking(self, kind: str, manifest: dict[str, Any]) -> list[str]:
        """Files that are not there, or not in their size."""
        sizes = self.files.sizes(_place(kind, manifest))
        return [name for name, file in manifest["files"].items() if sizes.get(name) != file["bytes"]]


def _place(kind: str, manifest: Mapping[str, Any]) -> str:
    upload = hashlib.sha256(canonical_json(manifest).encode()).hexdigest()[:16]
    return f"{kind}/{manifest['key']}/{upload}"


def _blocks(names: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(names), _AT_ONCE):
        yield names[start : start + _AT_ONCE]
