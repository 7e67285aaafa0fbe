"""manifest.json: which files a finished stage consists of, each with its size and SHA-256. It is written last."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any, Final

__all__ = [
    "MANIFEST", "command_again", "damaged_files", "describe_files", "misfits", "read_manifest", "sha256_of",
    "sync_folder", "whole_manifest", "write_synced",
]  # fmt: skip

MANIFEST: Final = "manifest.json"

_MANY: Final = 50


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """None if there is none, or what is there is none; files are not looked at."""
    try:
        return whole_manifest((folder / MANIFEST).read_bytes())
    except OSError:
        return None


def command_again(manifest: Mapping[str, Any], folder: Path) -> list[str]:
    """What computes this stage anew, into a folder beside whoever runs it: its command, on the spec where it lies now.

    It ran in a work folder, which is gone, and perhaps on another machine. Empty if the manifest does not say.
    """
    spec, command = folder / "spec.json", manifest.get("command", ())
    again = [str(spec) if Path(part).name == spec.name else part for part in command]
    return [*again, f"again-{manifest['stage'].replace(':', '-')}"] if again else []


def whole_manifest(text: bytes) -> dict[str, Any] | None:
    """The manifest, or None if `text` is cut short, or names a file outside its own folder."""
    try:
        manifest = json.loads(text)
        files: dict[str, dict[str, Any]] = manifest["files"]
        whole = all(_is_inside(name) and {"bytes", "sha256"} <= file.keys() for name, file in files.items())
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    return manifest if whole and "stage" in manifest and "key" in manifest else None


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts


def describe_files(folder: Path, *, without: frozenset[str] = frozenset()) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of each file below `folder`; all of it is on the disk afterwards, not in a cache of it."""
    inside = sorted(folder.rglob("*"))
    paths = [path for path in inside if path.is_file() and path.relative_to(folder).as_posix() not in without]
    # A disk writes the names and blocks of many files at once as quickly as those of one.
    with ThreadPoolExecutor(max_workers=16 if len(paths) > _MANY else 1) as workers:
        described = list(workers.map(_describe, paths))
    for inner in [folder, *(path for path in inside if path.is_dir())]:
        sync_folder(inner)
    return {path.relative_to(folder).as_posix(): file for path, file in zip(paths, described, strict=True)}


def _describe(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
        return {"bytes": os.fstat(file.fileno()).st_size, "sha256": digest}


def misfits(folder: Path, manifest: dict[str, Any]) -> list[str]:
    """Files that are gone or do not have their size; quick, since nothing is read."""
    base = f"{folder}{os.sep}"
    return [name for name, file in manifest["files"].items() if _size(base + name) != file["bytes"]]


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size  # noqa: PTH116 (a Path for each of 10,000 files costs more than the question)
    except OSError:
        return -1


def damaged_files(
    folder: Path, manifest: dict[str, Any], progress: Callable[[int], None] = lambda _: None
) -> list[str]:
    """Files that are gone or do not have their SHA-256. `progress` is told each file's bytes."""
    damaged = []
    for name, file in manifest["files"].items():
        path = folder / name
        if _size(str(path)) != file["bytes"] or sha256_of(path) != file["sha256"]:
            damaged.append(name)
        progress(file["bytes"])
    return damaged


def sha256_of(path: Path) -> str | None:
    """None if it cannot be read: for whoever needs the content that is the same as another content."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def write_synced(path: Path, text: str) -> None:
    """Whole or not at all, also when the machine loses its power."""
    temporary = path.with_name(f".{path.name}.part")
    with temporary.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Put the names in a folder on the disk: a rename is not there before."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
