"""Where the stages of a finished benchmark lie: a rerun's in its part of the store, or shared with the whole one."""

from collections.abc import Sequence
from pathlib import Path

from flows.run_record import RunRecord
from flows.store.manifest import MANIFEST
from flows.store.store import store_root

__all__ = ["finished_folder", "roots_of", "stage_folder"]


def roots_of(record: RunRecord) -> list[Path]:
    """The parts of the store that it may have used, its own first."""
    return [store_root(part) for part in dict.fromkeys((record.part, None))]


def stage_folder(record: RunRecord, stage: str) -> Path | None:
    """Of a stage that the record names, by its id. None: it is on this machine no longer."""
    return finished_folder(roots_of(record), stage, record.stages[stage])


def finished_folder(roots: Sequence[Path], stage: str, key: str) -> Path | None:
    """Under the first of `roots` that has the stage of this id and key."""
    folders = [root / stage.partition(":")[0] / key for root in roots]
    return next((folder for folder in folders if (folder / MANIFEST).exists()), None)
