"""The stage store: finished stages by key. Whatever has no manifest does not exist.

<root>/<kind>/<key>/manifest.json   a finished stage: its files with sizes and SHA-256, settings, environment, timings
<root>/<kind>/.work-<key>/          one that is running, or was interrupted: its checkpoints
<root>/<kind>/.lock-<key>           held by whoever computes it on this machine
<root>/<kind>/.push-<key>           committed here and not uploaded yet
<root>/<kind>/.fetch-<key>/         on its way from the remote
<root>/<kind>/.damaged-<key>-<n>/   moved aside, with damaged.json naming the files; .gone-<key>-<n>: being deleted

A stage becomes visible, and goes, by one rename. With a remote (flows.store.remote_store), what one machine has
computed the others fetch.
"""

import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from flows.home import home
from flows.planning.stages import Stage
from flows.store.exchange import Exchange, sum_of
from flows.store.index import StoreIndex
from flows.store.manifest import (
    MANIFEST,
    damaged_files,
    describe_files,
    misfits,
    read_manifest,
    sync_folder,
    write_synced,
)
from flows.store.remote_store import RemoteStore
from pcd.checkpoint_step import checkpoint_step
from pcd.errors import StageStoppedError
from pcd.os_errors import plain_os_errors

if TYPE_CHECKING:
    from filelock import FileLock

__all__ = ["StageState", "Store", "move_aside", "open_store", "store_root"]

_PASSING: Final = ("heartbeat.json", "activity.json", "checkpoint.json", "error.txt")
"""Files that say how a running stage fares, and mean nothing of a finished one."""

_POLL_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class StageState:
    name: Literal["cached", "remote", "resumable", "to run"]
    step: int | None = None
    """Of the newest checkpoint, for a resumable stage that tells."""


def open_store(part: str | None = None) -> "Store":
    """$PCD_HOME/store and, if $PCD_STORE is set, its remote; or a rerun's part of both, which knows nothing of them."""
    url = os.environ.get("PCD_STORE")
    return Store(store_root(part), RemoteStore(url, _inner(part)) if url else None)


def store_root(part: str | None = None) -> Path:
    """Where finished stages lie on this machine, as <kind>/<key>/."""
    return home() / _inner(part) / "store"


def _inner(part: str | None) -> str:
    return f"reruns/{part}" if part else ""


class Store:
    def __init__(self, root: Path, remote: RemoteStore | None = None) -> None:
        self.root = root
        self.note: Callable[[str], None] = logging.getLogger(__name__).warning
        """Told, in a line each, of what did not go as it should and hinders nothing."""
        self.index = StoreIndex(root)
        self.exchange = Exchange(root, remote, self._tell) if remote is not None else None

    def _tell(self, line: str) -> None:
        self.note(line)  # whoever that is by then

    # What is there.

    def find(self, stage: Stage) -> Path | None:
        """The finished stage's folder, if it is here and each of its files still has the size it had."""
        folder = self.folder(stage.kind, stage.key)
        manifest = read_manifest(folder)
        return folder if manifest is not None and not misfits(folder, manifest) else None

    def obtain(self, stage: Stage, progress: Callable[[int, int], None] = lambda _done, _total: None) -> Path | None:
        """As find, but every file's SHA-256 is checked, and what only the remote has is fetched. Hold the stage's lock.

        A stage that is damaged here is moved aside. A damaged one in the remote is no hit, and the next commit replaces
        it; a remote that does not answer has nothing.
        """
        with plain_os_errors(self.root):
            folder = self.folder(stage.kind, stage.key)
            if folder.exists():
                manifest = read_manifest(folder)
                damaged = (
                    [MANIFEST] if manifest is None else damaged_files(folder, manifest, sum_of(manifest, progress))
                )
                if not damaged:
                    return folder
                aside = move_aside(folder, "damaged")
                write_synced(aside / "damaged.json", json.dumps(damaged))
                self.note(f"{stage.id} is damaged in the store ({damaged[0]}); it was moved aside to {aside}")
            fetched = self.exchange.fetch(stage.kind, stage.key, progress) if self.exchange else None
            return _put_in_place(fetched, folder) if fetched else None

    def fetch(self, kind: str, key: str) -> Path | None:
        """A finished stage by its key alone, as of a run that other sources made; as it lies here, or from the remote.

        No lock is waited for: what is being computed is not there.
        """
        folder = self.folder(kind, key)
        if self.exchange is None or read_manifest(folder) is not None:
            return folder if folder.exists() else None
        with plain_os_errors(self.root), self.unlocked(kind, key) as is_free:
            fetched = self.exchange.fetch(kind, key, lambda _done, _total: None) if is_free else None
            return _put_in_place(fetched, folder) if fetched else None

    def state(self, stage: Stage) -> StageState:
        """Quick: nothing is hashed, and the remote is asked once for all stages."""
        if self.find(stage) is not None:
            return StageState("cached")
        if self.exchange is not None and stage.key in self.exchange.keys(stage.kind):
            return StageState("remote")
        work = self._beside("work", stage.kind, stage.key)
        step = checkpoint_step(work)
        return StageState("resumable", step) if step is not None or any(work.glob("checkpoint*.pt")) else _TO_RUN

    def manifests(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Every finished stage that is here, whether or not its files still fit."""
        for path in sorted(self.root.glob(f"*/[!.]*/{MANIFEST}")):
            manifest = read_manifest(path.parent)
            if manifest is not None:
                yield path.parent, manifest

    def folder(self, kind: str, key: str) -> Path:
        """Where a finished stage lies, if it is here."""
        return self.root / kind / key

    # One stage, from its start to its end.

    @contextmanager
    def lock(
        self, stage: Stage, on_wait: Callable[[], None] = lambda: None, stop: threading.Event | None = None
    ) -> Iterator[None]:
        """Held by whoever computes the stage; a second flow that needs it is told so, waits, and then obtains it.

        With a remote, flows on other machines wait as well; if it does not answer, they may compute the stage too.

        Args:
            on_wait: called once, before a wait.
            stop: ends a wait when it is set.

        Raises:
            StageStoppedError: by `stop`.
        """
        waits = 0

        def wait(seconds: float) -> None:
            nonlocal waits
            waits += 1
            if waits == 1:
                on_wait()
            if stop is None:
                time.sleep(seconds)
            elif stop.wait(seconds):
                raise StageStoppedError(f"{stage.id} was stopped while another run computed it")

        with ExitStack() as held:
            with plain_os_errors(self.root):
                path = self._beside("lock", stage.kind, stage.key)
                path.parent.mkdir(parents=True, exist_ok=True)
                lock = _file_lock(path)
                while not _acquired(lock):
                    wait(_POLL_SECONDS)
                held.callback(lock.release)
            if self.exchange is not None:
                held.enter_context(self.exchange.lock(stage.kind, stage.key, wait))
            yield

    @contextmanager
    def unlocked(self, kind: str, key: str) -> Iterator[bool]:
        """True, and the stage locked on this machine for the block, unless a living process here computes it."""
        path = self._beside("lock", kind, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = _file_lock(path)
        free = _acquired(lock)
        try:
            yield free
        finally:
            lock.release()

    def work_folder(self, stage: Stage) -> Path:
        """Where the stage writes until it is finished. What an interrupted run left there is still there."""
        folder = self._beside("work", stage.kind, stage.key)
        with plain_os_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        return folder

    def discard_work(self, stage: Stage) -> None:
        """Forget what an interrupted run left: the next one begins at its start. Hold the stage's lock."""
        work = self._beside("work", stage.kind, stage.key)
        if work.exists():
            shutil.rmtree(move_aside(work, "gone"))

    def commit(self, stage: Stage, record: dict[str, Any]) -> Path:
        """Turn the work folder into the finished stage, then upload it; hold the stage's lock.

        Killed anywhere in here, the stage is either finished, or its work folder is there for the next commit. An
        upload that does not succeed is told to `note` and made up for by a later commit, or by `pcd store push`.

        Args:
            record: what else is worth keeping: command, seconds, environment, benchmark, …

        Raises:
            PCDError: the disk is full or cannot be written to.
        """
        work, folder = self.work_folder(stage), self.folder(stage.kind, stage.key)
        with plain_os_errors(folder):
            for path in (*(work / name for name in _PASSING), *work.glob(".*.part")):
                path.unlink(missing_ok=True)
            manifest = {
                "stage": stage.id, "key": stage.key, "settings": stage.settings, "inputs": stage.inputs,
                "labels": stage.labels, "parts": stage.parts, "finished": time.time(), **record,
                "files": describe_files(work, without=frozenset({MANIFEST})),
            }  # fmt: skip
            write_synced(work / MANIFEST, json.dumps(manifest, indent=2) + "\n")
            if self.exchange is not None:
                self.exchange.mark(stage.kind, stage.key)
            _put_in_place(work, folder)
        if self.exchange is not None:
            self.exchange.upload_pending(stage.kind, stage.key)
        return folder

    def _beside(self, what: str, kind: str, key: str) -> Path:
        return self.root / kind / f".{what}-{key}"


_TO_RUN: Final = StageState("to run")


def move_aside(folder: Path, why: str) -> Path:
    """One rename, to a name that nothing is looked for under."""
    aside = folder.with_name(f".{why}-{folder.name.lstrip('.')}-{time.time_ns()}")
    folder.replace(aside)
    sync_folder(folder.parent)
    return aside


def _put_in_place(finished: Path, folder: Path) -> Path:
    before = move_aside(folder, "gone") if folder.exists() else None  # damaged, or computed afresh
    finished.replace(folder)
    sync_folder(folder.parent)
    if before is not None:
        shutil.rmtree(before, ignore_errors=True)
    return folder


def _file_lock(path: Path) -> "FileLock":
    from filelock import FileLock  # it imports asyncio: a tenth of a second, which plans have no use for

    return FileLock(path)


def _acquired(lock: "FileLock") -> bool:
    from filelock import Timeout

    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    return True
