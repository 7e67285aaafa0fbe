"""Bring a checkpoint here, whole and unchanged, or not at all."""

import errno
import hashlib
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Final

from pcd.errors import PCDError
from pcd.teachers.entry import TeacherEntry

__all__ = ["fetch_teacher"]

_BLOCK: Final = 1 << 20
_TIMEOUT_SECONDS: Final = 60


def fetch_teacher(
    entry: TeacherEntry, destination: Path, progress: Callable[[int, int], None] = lambda done, total: None
) -> str:
    """Stream the entry's file into `destination` (its parent exists) and return its SHA-256.

    The bytes go to a temporary file beside `destination`, which takes its name only when size and hash are right.

    Args:
        progress: called with bytes done and bytes in all (0: unknown).

    Raises:
        PCDError: unreachable, cut short, another hash, or no space; nothing is left behind.
    """
    temporary = destination.with_name(f".{destination.name}.part")
    try:
        with temporary.open("wb") as file:
            sha256, size = _stream(entry, file, progress)
        if entry.size_bytes is not None and size != entry.size_bytes:
            raise PCDError(
                f"{entry.url} gave {size:,} bytes where {entry.size_bytes:,} were expected: the file is truncated or "
                "another one; try again, and if it stays so, the publisher changed it"
            )
        if entry.sha256 is not None and sha256 != entry.sha256:
            raise PCDError(
                f"{entry.url} has SHA-256 {sha256} where {entry.sha256} was expected: the file is damaged or another "
                f"one and was not kept; teacher {entry.name} cannot be used until the publisher's file is right"
            )
        temporary.replace(destination)
    finally:
        temporary.unlink(missing_ok=True)
    return sha256


def _stream(entry: TeacherEntry, file: BinaryIO, progress: Callable[[int, int], None]) -> tuple[str, int]:
    digest, done = hashlib.sha256(), 0
    try:
        with urllib.request.urlopen(entry.url, timeout=_TIMEOUT_SECONDS) as response:
            total = int(response.headers.get("Content-Length") or 0)
            while block := response.read(_BLOCK):
                file.write(block)
                digest.update(block)
                done += len(block)
                progress(done, total)
        if total and done != total:  # read(n) does not tell an early end from the end
            raise OSError(f"{total:,} were announced")
        file.flush()
        os.fsync(file.fileno())
    except urllib.error.URLError as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        raise PCDError(
            f"teacher {entry.name}: cannot reach {entry.url} ({error.reason}); check the network and the address"
        ) from None
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise  # the stage says what to do about a full disk
        reason = " ".join(str(error).split())
        raise PCDError(
            f"teacher {entry.name}: {entry.url} broke off after {done:,} bytes ({reason}); try again"
        ) from None
    return digest.hexdigest(), done
