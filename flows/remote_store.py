"""The store's copy behind an fsspec URL, which several machines share.

<url>/<kind>/<key>.json            the manifest, written last: without it nothing below is read
<url>/<kind>/<key>/<upload>/…      the files; <upload> is a hash of the manifest, so that two machines that computed the
                                   same stage never mix their files, and an upload that broke off goes on
<url>/<kind>/.lock-<key>           who computes the stage now (flows.remote_lock)
"""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from flows.keys import canonical_json
from flows.manifest import plain_os_errors, sha256_of, whole_manifest
from pcd.errors import PCDError, unknown_name

__all__ = ["DamagedError", "RemoteStore", "UnreachableError"]

_CONNECT_SECONDS: Final = 5
_READ_SECONDS: Final = 30
_AT_ONCE: Final = 32  # files in one call: as many run side by side, where the file system can
_QUIET_SECONDS: Final = 30.0
_SNAPSHOT_SECONDS: Final = 10.0
_REFUSALS: Final = frozenset({"PermissionError", "NoCredentialsError", "PartialCredentialsError"})
_WRONG: Final = frozenset({"ParamValidationError", "InvalidRegionError", "InvalidURL", "ProfileNotFound"})


class UnreachableError(Exception):
    """The remote does not answer, or not well; what has to go there can go later. One line, without secrets."""


class DamagedError(Exception):
    """What came from the remote is not what its manifest names. One line."""


class RemoteStore:
    def __init__(self, url: str, part: str = "") -> None:
        """Nothing is imported or asked yet: a run that finds everything on this machine needs no remote.

        Args:
            part: a folder below the URL, made when needed. What the URL names has to be there.
        """
        self._url, self._part = url.rstrip("/"), part
        self.quiet_seconds = _QUIET_SECONDS
        self._quiet_until = float("-inf")
        self._fs: Any = None
        self._base = self._root = ""
        self._snapshot: tuple[float, dict[str, set[str]]] | None = None

    @property
    def name(self) -> str:
        """The URL without user, password and query."""
        parts = urlsplit(self._url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}" if parts.scheme else self._url

    # Stages.

    def keys(self) -> dict[str, set[str]]:
        """Kind to the keys of its finished stages; asked for at most once in ten seconds."""
        now = time.monotonic()
        if self._snapshot is None or now - self._snapshot[0] > _SNAPSHOT_SECONDS:
            kinds = [name for name in self._names("") if not name.startswith(".")]
            self._snapshot = now, {
                kind: {name.removesuffix(".json") for name in self._names(kind) if name.endswith(".json")}
                for kind in kinds
            }
        return self._snapshot[1]

    def manifest(self, kind: str, key: str) -> dict[str, Any] | None:
        found = self.read(f"{kind}/{key}.json")
        manifest = None if found is None else whole_manifest(found)
        return manifest if manifest is not None and manifest["key"] == key else None

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
        lacking = self._lacking(kind, manifest)
        progress(sum(file["bytes"] for name, file in manifest["files"].items() if name not in lacking))
        place = self._place(kind, manifest)
        for block in _blocks(lacking):
            with self._plain_errors():
                sources, targets = [str(folder / name) for name in block], [f"{place}/{name}" for name in block]
                self._open().put(sources, targets)
            progress(sum(manifest["files"][name]["bytes"] for name in block))
        if still := self._lacking(kind, manifest):
            raise UnreachableError(f"{self.name} took {still[0]} and does not have it")
        self.write(f"{kind}/{key}.json", json.dumps(manifest, indent=2).encode() + b"\n")
        self._snapshot = None

    def fetch(
        self, kind: str, manifest: dict[str, Any], into: Path, progress: Callable[[int], None] = lambda _: None
    ) -> None:
        """All files of the manifest, each checked by its SHA-256. Those that an earlier fetch brought stay.

        Raises DamagedError, and then leaves nothing behind.
        """
        files, place = manifest["files"], self._place(kind, manifest)
        lacking = [name for name, file in files.items() if sha256_of(into / name) != file["sha256"]]
        progress(sum(file["bytes"] for name, file in files.items() if name not in lacking))
        for block in _blocks(lacking):
            with self._plain_errors(), plain_os_errors(into):
                for name in block:
                    (into / name).parent.mkdir(parents=True, exist_ok=True)
                try:
                    self._open().get([f"{place}/{name}" for name in block], [str(into / name) for name in block])
                except FileNotFoundError:
                    pass  # told below, by its name
            for name in block:
                if sha256_of(into / name) != files[name]["sha256"]:
                    shutil.rmtree(into)
                    raise DamagedError(f"{name} of {manifest['stage']} is gone or damaged in {self.name}")
            progress(sum(files[name]["bytes"] for name in block))

    def damaged_files(
        self, kind: str, manifest: dict[str, Any], progress: Callable[[int], None] = lambda _: None
    ) -> list[str]:
        """As flows.manifest.damaged_files; reads every byte over the network, and writes none."""
        damaged, place = self._lacking(kind, manifest), self._place(kind, manifest)
        for name, file in manifest["files"].items():
            if name not in damaged:
                with self._plain_errors(), self._open().open(f"{place}/{name}", "rb") as stream:
                    digest = hashlib.sha256()
                    while block := stream.read(1 << 22):
                        digest.update(block)
                if digest.hexdigest() != file["sha256"]:
                    damaged.append(name)
            progress(file["bytes"])
        return damaged

    def _lacking(self, kind: str, manifest: dict[str, Any]) -> list[str]:
        """Files that are not there, or not in their size."""
        place = self._place(kind, manifest)
        with self._plain_errors():
            try:
                found: dict[str, Any] = self._open().find(place, detail=True)
            except FileNotFoundError as error:
                _refuse_missing_bucket(error)
                found = {}
        sizes = {path.rpartition(f"{_upload_name(manifest)}/")[2]: info["size"] for path, info in found.items()}
        return [name for name, file in manifest["files"].items() if sizes.get(name) != file["bytes"]]

    def _place(self, kind: str, manifest: dict[str, Any]) -> str:
        self._open()
        return f"{self._root}/{kind}/{manifest['key']}/{_upload_name(manifest)}"

    # Single objects.

    def read(self, name: str) -> bytes | None:
        with self._plain_errors():
            try:
                content: bytes = self._open().cat_file(f"{self._root}/{name}")
            except FileNotFoundError as error:
                _refuse_missing_bucket(error)
                return None
        return content

    def write(self, name: str, content: bytes) -> None:
        with self._plain_errors():
            self._open().pipe_file(f"{self._root}/{name}", content)

    def create(self, name: str, content: bytes) -> bool:
        """Write an object that is not there yet; False if it is. One of several that try at once succeeds."""
        with self._plain_errors():
            fs, path = self._open(), f"{self._root}/{name}"
            try:
                if "file" in _protocols(fs):  # fsspec's own looks first and writes then
                    fs.makedirs(fs._parent(path), exist_ok=True)
                    with fs.open(path, "xb") as file:
                        file.write(content)
                else:
                    fs.pipe_file(path, content, mode="create")
            except FileExistsError:
                return False
        return True

    def remove(self, name: str) -> None:
        with self._plain_errors():
            try:
                self._open().rm_file(f"{self._root}/{name}")
            except FileNotFoundError:
                pass

    def _names(self, folder: str) -> list[str]:
        with self._plain_errors():
            try:
                fs = self._open()
                fs.invalidate_cache()
                paths: list[str] = fs.ls(f"{self._root}/{folder}".rstrip("/"), detail=False)
            except FileNotFoundError as error:
                _refuse_missing_bucket(error)
                return []
        return [path.rstrip("/").rpartition("/")[2] for path in paths]

    # The file system, and what goes wrong with it.

    def _open(self) -> Any:
        if self._fs is None:
            from fsspec import available_protocols
            from fsspec.core import url_to_fs

            protocol = urlsplit(self._url).scheme or "file"
            if protocol not in available_protocols():
                raise unknown_name("protocol of PCD_STORE", protocol, ("s3", "gs", "abfs", "sftp", "file"))
            try:
                self._fs, root = url_to_fs(self._url, use_listings_cache=False, **_options(protocol))
            except ImportError as error:
                told = "install pcd-benchmark[s3]" if protocol.startswith("s3") else str(error).splitlines()[0]
                raise PCDError(f"PCD_STORE {self.name} needs a package that is not installed: {told}") from None
            self._base = root.rstrip("/")
            self._root = f"{self._base}/{self._part}".rstrip("/")
        if "file" in _protocols(self._fs) and not self._fs.isdir(self._base):  # perhaps a share that is not mounted
            raise PCDError(f"PCD_STORE {self.name} does not exist; make the folder, mount it, or check the URL")
        return self._fs

    @contextmanager
    def _plain_errors(self) -> Iterator[None]:
        """Raises PCDError for what the user has to mend, UnreachableError for what may pass.

        For half a minute behind the latter nothing is asked, so that a thousand stages do not each wait for a time-out.
        """
        if time.monotonic() < self._quiet_until:
            raise UnreachableError(f"the remote store {self.name} did not answer a moment ago")
        try:
            yield
        except (PCDError, UnreachableError):
            raise
        except Exception as error:
            kinds = {kind.__name__ for kind in type(error).__mro__}
            reason = self._without_secrets(error)
            if kinds & _REFUSALS:
                told = f"PCD_STORE {self.name} refuses us ({reason}); check its credentials"
                raise PCDError(told) from None
            if kinds & _WRONG or isinstance(error, FileNotFoundError):
                raise PCDError(f"PCD_STORE {self.name} cannot be used ({reason}); check the URL") from None
            self._quiet_until = time.monotonic() + self.quiet_seconds
            raise UnreachableError(f"the remote store {self.name} does not answer ({reason})") from None

    def _without_secrets(self, error: Exception) -> str:
        told = " ".join(str(error).split())[:200] or type(error).__name__
        user_info, _, _ = urlsplit(self._url).netloc.rpartition("@")
        secrets = {part for part in (user_info, *user_info.split(":"), urlsplit(self._url).query) if part}
        for secret in sorted(secrets | {unquote(part) for part in secrets}, key=len, reverse=True):
            told = told.replace(secret, "***")
        return told


def _upload_name(manifest: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical_json(manifest).encode()).hexdigest()[:16]


def _refuse_missing_bucket(error: FileNotFoundError) -> None:
    """An object store says the same of a missing object, which is nothing to complain of."""
    if "bucket does not exist" in str(error):
        raise error


def _protocols(fs: Any) -> tuple[str, ...]:
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)


def _options(protocol: str) -> dict[str, Any]:
    if protocol in ("file", "local"):
        return {"auto_mkdir": True}
    if not protocol.startswith("s3"):
        return {}
    patience = {"connect_timeout": _CONNECT_SECONDS, "read_timeout": _READ_SECONDS, "retries": {"max_attempts": 2}}
    return {"config_kwargs": patience}


def _blocks(names: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(names), _AT_ONCE):
        yield names[start : start + _AT_ONCE]
