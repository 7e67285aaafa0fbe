"""`pcd store gc`: what may go. Never what a finished run's record, a run under way, or a held lock names."""

import json
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from flows.store.store import Store, move_aside
from pcd.errors import PCDError

__all__ = ["Garbage", "delete", "find_garbage", "named_keys", "read_records", "size_and_age"]

_KEY: Final = re.compile(r"[0-9a-f]{64}")
_BESIDE: Final = re.compile(r"\.(work|fetch|damaged|gone)-(?:work-)?([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Garbage:
    path: Path
    key: str
    """Of a part of the store, its name."""
    what: str
    bytes: int
    age_days: float


def find_garbage(store: Store, home: Path, older_than_days: float) -> list[Garbage]:
    """Stages that no run names, work that nobody goes on with, and what was moved aside, all of that age; and what
    killed processes left half fetched or half deleted, of any age. The remote is left alone: others may need it.

    Raises PCDError if it cannot be told what a run names.
    """
    named = named_keys(home)
    pending = {key for _, key in store.exchange.pending()} if store.exchange else set()
    found = []
    for path in sorted(store.root.glob("*/*")):
        key, what = _key_and_kind(path)
        if key is None:
            continue
        passing = what in ("half fetched", "half deleted")
        if not passing and (key in named or key in pending) and what != "damaged, moved aside":
            continue
        item = Garbage(path, key, what, *size_and_age(path))
        if passing or item.age_days >= older_than_days:
            with store.unlocked(path.parent.name, key) as free:
                if free:
                    found.append(item)
    return found


def delete(store: Store, home: Path, item: Garbage) -> bool:
    """One rename, then the files: killed in between, it is found again. False if it is needed after all, or gone."""
    with store.unlocked(item.path.parent.name, item.key) as free:
        is_stage = item.what in ("stage of no run", "interrupted work")
        if not free or not item.path.exists() or (is_stage and item.key in named_keys(home)):
            return False
        shutil.rmtree(item.path if item.what == "half deleted" else move_aside(item.path, "gone"))
    return True


def _key_and_kind(path: Path) -> tuple[str | None, str]:
    if _KEY.fullmatch(path.name):
        return path.name, "stage of no run"
    beside = _BESIDE.match(path.name)
    if beside is None or not path.is_dir():
        return None, ""
    words = {"work": "interrupted work", "fetch": "half fetched", "damaged": "damaged, moved aside"}
    return beside[2], words.get(beside[1], "half deleted")


def size_and_age(path: Path) -> tuple[int, float]:
    """Bytes, and days since anything in there was written."""
    length, newest = 0, path.stat().st_mtime
    for inner in path.rglob("*"):
        size = inner.lstat()
        length, newest = length + (size.st_size if inner.is_file() else 0), max(newest, size.st_mtime)
    return length, max(0.0, (time.time() - newest) / 86400)


def named_keys(home: Path) -> set[str]:
    """All keys that the records of finished runs and of runs under way name, in whatever place of them."""
    named: set[str] = set()
    for _, record in read_records(home):
        named |= set(_keys_in(record))
    return named


def read_records(home: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Of finished runs and of runs under way. Raises PCDError if one cannot be read: what it names must not go."""
    for path in [*home.glob("active/*.json"), *home.glob("benchmarks/*.json")]:
        try:
            yield path, json.loads(path.read_text())
        except FileNotFoundError:  # a run that ended just now
            continue
        except (OSError, ValueError):
            raise PCDError(f"cannot read {path}, so it is unknown which stages it names; mend or delete it") from None


def _keys_in(data: Any) -> Iterator[str]:
    match data:
        case str() if _KEY.fullmatch(data):
            yield data
        case dict():
            for value in data.values():
                yield from _keys_in(value)
        case list():
            for value in data:
                yield from _keys_in(value)
