"""Parts of the store that reruns computed in, $PCD_HOME/reruns/<part>/store/: those whose rerun nobody remembers go."""

import shutil
from pathlib import Path
from typing import Final

from flows.store.gc import Garbage, read_records, size_and_age
from flows.store.store import move_aside

__all__ = ["delete_part", "find_parts"]

_WHAT: Final = "part of no rerun"
_HALF_DELETED: Final = "half deleted"


def find_parts(home: Path, older_than_days: float) -> list[Garbage]:
    """Parts of that age that no record of a finished rerun and no run under way names; and what is left of one whose
    deletion was interrupted, of any age. What the remote has of them, and the verdicts, are left alone.

    Raises PCDError if it cannot be told which parts are named.
    """
    named = _named_parts(home)
    found = [
        Garbage(path, path.parent.name, _WHAT, *size_and_age(path))
        for path in sorted(home.glob("reruns/*/store"))
        if path.parent.name not in named
    ]
    left = [
        Garbage(path, path.parent.name, _HALF_DELETED, *size_and_age(path)) for path in home.glob("reruns/*/.gone-*")
    ]
    return [item for item in found if item.age_days >= older_than_days] + left


def delete_part(home: Path, item: Garbage) -> bool:
    """One rename, then the files, and the part's folder if it holds no verdict. False if it is needed after all."""
    if not item.path.exists() or (item.what == _WHAT and item.key in _named_parts(home)):
        return False
    shutil.rmtree(item.path if item.what == _HALF_DELETED else move_aside(item.path, "gone"))
    if not any(item.path.parent.iterdir()):
        item.path.parent.rmdir()
    return True


def _named_parts(home: Path) -> set[str | None]:
    return {record.get("store_part") or record.get("part") for _, record in read_records(home)}
