"""Objects behind an fsspec URL, and what goes wrong with them in one line each without secrets."""

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from pcd.errors import PCDError, unknown_name
from pcd.os_errors import plain_os_errors

__all__ = ["RemoteFiles", "UnreachableError"]

_CONNECT_SECONDS: Final = 5
_READ_SECONDS: Final = 20
_QUIET_SECONDS: Final = 30.0
_BLOCK_BYTES: Final = 1 << 22
_REFUSALS: Final = frozenset({"PermissionError", "NoCredentialsError", "PartialCredentialsError"})
_WRONG: Final = frozenset({"ParamValidationError", "InvalidRegionError", "InvalidURL", "ProfileNotFound"})


class UnreachableError(Exception):
    """The remote does not answer, or not well; what has to go there can go later. One line, without secrets."""


class RemoteFiles:
    """Named by paths below the URL. Each method raises PCDError for what is the user's to mend, or UnreachableError."""

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

    @property
    def name(self) -> str:
        """The URL without user, password and query."""
        parts = urlsplit(self._url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}" if parts.scheme else self._url

    def read(self, name: str) -> bytes | None:
        with self._plain_errors():
            try:
                content: bytes = self._open().cat_file(f"{self._root}/{name}")
            except FileNotFoundError as error:
                _refuse_missing_bucket(error)
                return None
        return content

    def read_all(self, names: Sequence[str]) -> dict[str, bytes]:
        """Name to content, side by side where the file system can; what is not there is left out."""
        if not names:
            return {}
        with self._plain_errors():
            fs = self._open()
            found: dict[str, bytes] = fs.cat([f"{self._root}/{name}" for name in names], on_error="omit")
        return {path.removeprefix(f"{self._root}/"): content for path, content in found.items()}

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

    def names(self, folder: str) -> list[str]:
        with self._plain_errors():
            try:
                fs = self._open()
                fs.invalidate_cache()
                paths: list[str] = fs.ls(f"{self._root}/{folder}".rstrip("/"), detail=False)
            except FileNotFoundError as error:
                _refuse_missing_bucket(error)
                return []
        return [path.rstrip("/").rpartition("/")[2] for path in paths]

    def sizes(self, folder: str) -> dict[str, int]:
        """Bytes of each file below a folder, by its path from there."""
        with self._plain_errors():
            fs = self._open()
            base = f"{self._root}/{folder}/"
            try:
                fs.invalidate_cache()
                found: dict[str, Any] = fs.find(base, detail=True)
            except FileNotFoundError as error:
                _refuse_missing_bucket(error)
                return {}
        return {path.removeprefix(base): int(info["size"]) for path, info in found.items()}

    def put(self, files: Mapping[str, Path]) -> None:
        """Path there to file here. An object store takes each whole or not at all; a folder may keep a part of one."""
        with self._plain_errors():
            self._open().put([str(path) for path in files.values()], [f"{self._root}/{name}" for name in files])

    def get(self, files: Mapping[str, Path]) -> None:
        """Path there to file here. What is not there is passed over."""
        here = next(iter(files.values())).parent
        with self._plain_errors(), plain_os_errors(here):  # this disk's errors are not the remote's
            try:
                self._open().get([f"{self._root}/{name}" for name in files], [str(path) for path in files.values()])
            except FileNotFoundError as error:
                _refuse_missing_bucket(error)

    def sha256(self, name: str) -> str:
        """Reads all of it, and keeps nothing."""
        digest = hashlib.sha256()
        with self._plain_errors(), self._open().open(f"{self._root}/{name}", "rb") as stream:
            while block := stream.read(_BLOCK_BYTES):
                digest.update(block)
        return digest.hexdigest()

    # The file system, and what goes wrong with it.

    def _open(self) -> Any:
        if self._fs is None:
            from fsspec import available_protocols
            from fsspec.core import url_to_fs

            protocol = urlsplit(self._url).scheme or "file"
            if protocol not in available_protocols():
                raise unknown_name("protocol of PCD_STORE", protocol, ("s3", "gs", "abfs", "sftp", "file"))
            try:
                self._fs, root = url_to_fs(
                    self._url, use_listings_cache=False, skip_instance_cache=True, **_options(protocol)
                )
            except ImportError as error:
                told = "install pcd-benchmark[s3]" if protocol.startswith("s3") else str(error).splitlines()[0]
                raise PCDError(f"PCD_STORE {self.name} needs a package that is not installed: {told}") from None
            if protocol.startswith("s3"):
                self._fs.retries = 1  # botocore's are enough: five times as many make minutes of a server that is deaf
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
    patience = {
        "connect_timeout": _CONNECT_SECONDS,
        "read_timeout": _READ_SECONDS,
        "retries": {"mode": "standard", "total_max_attempts": 3},
    }
    return {"config_kwargs": patience}
