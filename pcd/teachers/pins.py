"""Which file each teacher has on this machine: published hashes, and those pinned at the first fetch."""

import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from pcd.errors import PCDError
from pcd.stage import write_json
from pcd.teachers.entry import PublishedFile, TeacherEntry

__all__ = [
    "LOCK_FILE", "Identity",
    "called", "identify", "is_known_file", "pin", "read_pins", "replaced_hash", "way_to_bring",
]  # fmt: skip

LOCK_FILE: Final = "teachers.lock.json"
"""In PCD_HOME: teacher to {sha256, bytes, source, date, replaces}."""


@dataclass(frozen=True, slots=True)
class Identity:
    sha256: str
    rests_on: Literal["published", "pinned", "unknown"]
    """The publisher's whole SHA-256; the pin of an earlier fetch; or nothing yet, so that it has to be pinned."""
    as_reported: bool | None
    """Whether a third party's hash says the same; None: there is none."""


def identify(
    entry: PublishedFile, path: Path, home: Path, *, accept_change: bool = False, source: str = ""
) -> Identity:
    """Hash the file and hold it against what is known of the entry's file.

    Args:
        accept_change: another file than the pinned one is welcome.
        source: where the file came from, for the messages.

    Raises:
        PCDError: another size or hash than published, or another hash than pinned.
    """
    source = source or str(path)
    size = path.stat().st_size
    if entry.size_bytes is not None and size != entry.size_bytes:
        raise PCDError(
            f"{source} gave {size:,} bytes where {entry.size_bytes:,} were expected: the file is truncated or another "
            "one; try again, and if it stays so, the publisher changed it"
        )
    published, reported = entry.published_hash, entry.reported_hash
    algorithms = {"sha256", *(known.algorithm for known in (published, reported) if known)}
    hashes = {algorithm: _hash(path, algorithm) for algorithm in algorithms}
    sha256 = hashes["sha256"]
    as_reported = hashes[reported.algorithm].startswith(reported.hex_prefix) if reported else None
    if published and not hashes[published.algorithm].startswith(published.hex_prefix):
        raise PCDError(
            f"{source} has {published.algorithm} {hashes[published.algorithm]} where {published} was published: the "
            f"file is damaged or another one and was not kept; {called(entry)} must be the publisher's own"
        )
    if published and published.algorithm == "sha256" and published.is_whole:
        return Identity(sha256, "published", as_reported)
    pinned = read_pins(home).get(entry.name)
    if pinned is None or accept_change:
        return Identity(sha256, "unknown", as_reported)
    if pinned["sha256"] != sha256:
        raise PCDError(
            f"{source} has SHA-256 {sha256} where {pinned['sha256']} was pinned on {pinned['date']} from "
            f"{pinned['source']}: the publisher changed the file, or it is damaged, and it was not kept; to accept it, "
            f"{way_to_bring(entry, '--accept-change')}"
        )
    return Identity(sha256, "pinned", as_reported)


def called(entry: PublishedFile) -> str:
    """As messages name it: the weights of the arm supervised are no teacher."""
    return f"teacher {entry.name}" if isinstance(entry, TeacherEntry) else f"the weights {entry.name}"


def way_to_bring(entry: PublishedFile, option: str) -> str:
    """What a user does to have another file taken than the one that would be fetched."""
    if isinstance(entry, TeacherEntry):
        return f"run `pcd teachers fetch {entry.name} {option}`"
    return "set supervised_file to it"


def _hash(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()


def pin(entry: PublishedFile, sha256: str, size: int, source: str, home: Path) -> None:
    """Hold the entry to this file from now on. An earlier pin of another file stays on record below `replaces`."""
    from filelock import FileLock  # it imports asyncio: a tenth of a second, which plans have no use for

    path = home / LOCK_FILE
    with FileLock(path.with_name(f".{LOCK_FILE}.lock")):
        pins = read_pins(home)
        before = pins.get(entry.name, {})
        replaces = list(before.get("replaces", []))
        if before.get("sha256", sha256) != sha256:
            replaces.append(before["sha256"])
        pins[entry.name] = {
            "sha256": sha256,
            "bytes": size,
            "source": source,
            "date": time.strftime("%Y-%m-%d"),
            "replaces": replaces,
        }
        write_json(path, dict(sorted(pins.items())))


def read_pins(home: Path) -> dict[str, dict[str, Any]]:
    """Raises PCDError if the lock file is damaged."""
    path = home / LOCK_FILE
    try:
        pins: dict[str, dict[str, Any]] = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except ValueError as error:
        raise PCDError(
            f"{path} is damaged ({error}); mend it, or delete it to pin every teacher anew at its next fetch"
        ) from None
    return pins


def replaced_hash(name: str, home: Path) -> str | None:
    """The pinned SHA-256, if it took the place of another one: what was made from that one is then out of date.

    None for a first pin, so that pinning a file does not change the keys of what was made from it.
    """
    pinned = read_pins(home).get(name, {})
    return str(pinned["sha256"]) if pinned.get("replaces") else None


def is_known_file(entry: PublishedFile, sha256: str, home: Path) -> bool:
    """Whether a file with this SHA-256 is the one that a fetch would bring: as published, or as pinned here."""
    published, pinned = entry.published_hash, read_pins(home).get(entry.name)
    if pinned is not None and not (published and published.is_whole):
        return bool(pinned["sha256"] == sha256)
    return published is not None and published.algorithm == "sha256" and sha256.startswith(published.hex_prefix)
