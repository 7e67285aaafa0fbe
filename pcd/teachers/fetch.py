"""Bring a teacher's file to this machine, once, and only if it is the right one."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlparse

from filelock import FileLock

from pcd.errors import PCDError
from pcd.teachers.download import Progress, download
from pcd.teachers.entry import PublishedFile
from pcd.teachers.pins import Identity, called, identify, pin, way_to_bring
from pcd.teachers.registry import TEACHERS

__all__ = ["MIRROR_VARIABLE", "Fetched", "fetch_teacher", "kept_file"]

MIRROR_VARIABLE: Final = "PCD_TEACHER_MIRROR"
"""Environment variable that names a folder with publishers' files."""


@dataclass(frozen=True, slots=True)
class Fetched:
    path: Path
    source: str
    """Where the file came from: an address or a path."""
    sha256: str
    was_published: bool
    """Whether its publisher names the whole hash; else it is pinned in PCD_HOME's lock file."""
    as_reported: bool | None
    """Whether a third party's hash says the same; None: there is none."""


def fetch_teacher(
    entry: PublishedFile,
    home: Path,
    *,
    file: Path | None = None,
    mirror: Path | None = None,
    accept_change: bool = False,
    progress: Progress = lambda done, total: None,
    check: Callable[[Path, str], object] = lambda path, sha256: None,
) -> Fetched:
    """The publisher's file of `entry`, verified: kept in `home`/teachers/<name>/, and brought there if it is not.

    Sources in order: `file`; what was kept before; `mirror`; the entry's address. The file of a `file:` address is used
    where it lies.

    Args:
        mirror: a folder that has the file below the teacher's name, or under the publisher's file name.
        accept_change: bring the file anew, and let it replace a pinned one that was another.
        check: called with the right file and its SHA-256 before it is kept and pinned; one that this refuses leaves
            nothing behind.

    Raises:
        PCDError: nowhere to be had, cut short, or another size or hash than published or pinned.
    """
    folder = home / "teachers"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f".{entry.name}.lock"):
        lies_here = _in_place(entry) if file is None else None
        kept = _kept(entry, home)
        if lies_here is None and file is None and not accept_change and (known := _identify_kept(entry, kept, home)):
            check(kept, known.sha256)
            return _settle(entry, kept, str(kept), known, home)
        local = lies_here or file or _in_mirror(entry, mirror)
        if local is None and entry.url is None:
            raise PCDError(
                f"nobody serves {called(entry)} at an address: get {entry.obtain}, then "
                f"{way_to_bring(entry, '--file FILE')}"
            )
        if local is None:
            kept.parent.mkdir(exist_ok=True)
            known = _download(entry, kept, home, accept_change, progress, check)
        else:
            if not local.is_file():
                raise PCDError(f"{called(entry)}: {local} does not exist; give the publisher's file")
            known = identify(entry, local, home, accept_change=accept_change)
            check(local, known.sha256)
            if local != lies_here:
                kept.parent.mkdir(exist_ok=True)
                _link_or_copy(local, kept)
        return _settle(entry, lies_here or kept, str(local or entry.url), known, home)


def kept_file(entry: PublishedFile, home: Path) -> Path:
    """Where the publisher's file lies once it is fetched."""
    return _in_place(entry) or _kept(entry, home)


def _kept(entry: PublishedFile, home: Path) -> Path:
    return home / "teachers" / entry.name / entry.file_name


def _download(
    entry: PublishedFile,
    kept: Path,
    home: Path,
    accept_change: bool,
    progress: Progress,
    check: Callable[[Path, str], object],
) -> Identity:
    assert entry.url is not None
    part = kept.with_name(f".{kept.name}.part")
    download(entry.url, part, progress)
    try:
        known = identify(entry, part, home, accept_change=accept_change, source=entry.url)
        check(part, known.sha256)
    except PCDError:
        part.unlink()
        raise
    part.replace(kept)
    return known


def _identify_kept(entry: PublishedFile, kept: Path, home: Path) -> Identity | None:
    """None if there is none, or one that is no longer the right one: it is brought anew."""
    if not kept.exists():
        return None
    try:
        return identify(entry, kept, home)
    except PCDError as error:
        print(f"{error}; bringing it anew")
        return None


def _in_place(entry: PublishedFile) -> Path | None:
    parts = urlparse(entry.url or "")
    return Path(unquote(parts.path)) if parts.scheme == "file" else None


def _in_mirror(entry: PublishedFile, mirror: Path | None) -> Path | None:
    """<name>/<file> below the mirror, or the only file in <name>/, or <file> if no other teacher's has that name."""
    if mirror is None:
        return None
    if not mirror.is_dir():
        raise PCDError(
            f"the mirror {mirror} is no folder; set --mirror or {MIRROR_VARIABLE} to one with teachers' files"
        )
    own = sorted(path for path in mirror.glob(f"{entry.name}/*") if path.is_file() and not path.name.startswith("."))
    named = [path for path in own if path.name == entry.file_name] or own
    if len(named) == 1:
        return named[0]
    others = {other.file_name for other in TEACHERS.values() if other.name != entry.name}
    loose = mirror / entry.file_name
    return loose if loose.is_file() and entry.file_name not in others else None


def _link_or_copy(local: Path, kept: Path) -> None:
    """A hard link where the file system allows it: a gigabyte need not lie on a disk twice."""
    part = kept.with_name(f".{kept.name}.part")
    part.unlink(missing_ok=True)
    try:
        os.link(local.resolve(), part)
    except OSError:
        shutil.copyfile(local, part)
    part.replace(kept)


def _settle(entry: PublishedFile, path: Path, source: str, known: Identity, home: Path) -> Fetched:
    if known.rests_on == "unknown":
        pin(entry, known.sha256, path.stat().st_size, source, home)
    return Fetched(path, source, known.sha256, known.rests_on == "published", known.as_reported)
