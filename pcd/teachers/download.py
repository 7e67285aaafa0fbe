"""Bring a file over HTTP, and go on where an earlier try broke off."""

import errno
import http.client
import json
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPResponse
from pathlib import Path
from typing import Any, Final

from pcd.errors import PCDError
from pcd.stage import write_json

__all__ = ["Progress", "download"]

Progress = Callable[[int, int], None]
"""Called with bytes done and bytes in all (0: unknown)."""

_BLOCK: Final = 1 << 20
_TIMEOUT_SECONDS: Final = 60


def download(url: str, part: Path, progress: Progress) -> None:
    """Stream `url` into `part`, whose folder exists.

    What an earlier try left in `part` is gone on with if the server says by its ETag or Last-Modified that its file is
    still the same one; else the download starts anew. A connection that breaks is taken up again as long as each try
    brings something.

    Raises:
        PCDError: unreachable, or cut short; what came stays in `part` for the next try.
    """
    while True:
        before = _size(part)
        try:
            _go_on(url, part, progress)
        except urllib.error.URLError as error:
            if isinstance(error, urllib.error.HTTPError):
                error.close()
            raise PCDError(f"cannot reach {url} ({error.reason}); check the network and the address") from None
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise  # the stage says what to do about a full disk
            if _size(part) > before and _note(part):
                continue
            reason, next_time = " ".join(str(error).split()), ", and it goes on from there" if _note(part) else ""
            raise PCDError(f"{url} broke off after {_size(part):,} bytes ({reason}); try again{next_time}") from None
        else:
            _note_path(part).unlink(missing_ok=True)
            return


def _go_on(url: str, part: Path, progress: Progress) -> None:
    note = _note(part)
    done = _size(part) if note.get("url") == url else 0
    if done and done == note["total"]:  # stopped between the last byte and its judgement
        return
    headers = {"Range": f"bytes={done}-", "If-Range": note["validator"]} if done else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT_SECONDS) as response:
            is_rest = response.status == http.HTTPStatus.PARTIAL_CONTENT
            fits = _first_byte(response) == done and _validator(response) == note.get("validator")
            if fits or not is_rest:
                _receive(response, url, part, done if is_rest else 0, progress)
                return
    except urllib.error.HTTPError as error:
        if not done or error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        error.close()
    part.unlink(missing_ok=True)  # the server has another file now
    _go_on(url, part, progress)


def _receive(response: HTTPResponse, url: str, part: Path, done: int, progress: Progress) -> None:
    """Write what comes behind the first `done` bytes of `part`."""
    length = int(response.headers.get("Content-Length") or 0)
    total = done + length if length else 0
    _note_path(part).unlink(missing_ok=True)  # never one of another file beside these bytes
    with part.open("ab" if done else "wb") as file:
        if validator := _validator(response):
            write_json(_note_path(part), {"url": url, "validator": validator, "total": total})
        while block := response.read(_BLOCK):
            file.write(block)
            done += len(block)
            progress(done, total)
        file.flush()
        os.fsync(file.fileno())
    if total and done != total:  # read(n) does not tell an early end from the end
        raise OSError(f"{total:,} were announced")


def _validator(response: HTTPResponse) -> str | None:
    """What the server names this very content by; a weak ETag promises no equal bytes (RFC 9110, 8.8.1)."""
    tag: str | None = response.headers.get("ETag")
    return tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified")


def _first_byte(response: HTTPResponse) -> int:
    """Of `Content-Range: bytes 100-199/200`: 100; -1 if there is none."""
    first = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
    return int(first) if first.isdecimal() else -1


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _note_path(part: Path) -> Path:
    """Beside `part`: which address, which content of it, and how many bytes in all."""
    return part.with_name(f"{part.name}.json")


def _note(part: Path) -> dict[str, Any]:
    try:
        note: dict[str, Any] = json.loads(_note_path(part).read_text())
    except (OSError, ValueError):
        return {}
    return note
