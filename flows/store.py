"""The stage store: finished stages by key. Whatever has no manifest does not exist.

<home>/store/<kind>/<key>/manifest.json   files with sizes and SHA-256, settings, environment, timings
<home>/store/<kind>/.work-<key>/          a stage that is running, or was interrupted: its checkpoints
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from filelock import FileLock, Timeout

from flows.plan import Stage
from pcd.stage import write_json

__all__ = ["Store"]

_MANIFEST: Final = "manifest.json"


class Store:
    def __init__(self, root: Path) -> None:
        self.root = root

    def find(self, stage: Stage) -> Path | None:
        """The finished stage's folder, if it is there and each of its files still has the size it had."""
        folder = self._folder(stage)
        manifest = self.manifest(folder)
        if manifest is None:
            return None
        for name, file in manifest["files"].items():
            path = folder / name
            if not path.is_file() or path.stat().st_size != file["bytes"]:
                return None
        return folder

    def state(self, stage: Stage) -> str:
        """ "in the store", "resumable" (an interrupted run left a checkpoint) or "to run"."""
        if self.find(stage) is not None:
            return "in the store"
        return "resumable" if any(self._work_path(stage).glob("checkpoint*.pt")) else "to run"

    def manifest(self, folder: Path) -> dict[str, Any] | None:
        try:
            manifest: dict[str, Any] = json.loads((folder / _MANIFEST).read_text())
        except (OSError, ValueError):
            return None
        return manifest

    @contextmanager
    def lock(self, stage: Stage, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Held by whoever computes the stage; a second flow that needs it is told so, waits, and then finds it."""
        path = self.root / stage.kind / f".lock-{stage.key}"
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            on_wait()
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def work_folder(self, stage: Stage) -> Path:
        """Where the stage writes until it is finished. What an interrupted run left there is still there."""
        folder = self._work_path(stage)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def commit(self, stage: Stage, record: dict[str, Any]) -> Path:
        """Turn the work folder into the finished stage: manifest last, then one rename."""
        work, folder = self.work_folder(stage), self._folder(stage)
        files = {
            str(path.relative_to(work)): {"bytes": path.stat().st_size, "sha256": _sha256(path)}
            for path in sorted(work.rglob("*"))
            if path.is_file() and path.name != _MANIFEST
        }
        manifest = {"stage": stage.id, "key": stage.key, "settings": stage.settings, "inputs": stage.inputs}
        write_json(work / _MANIFEST, manifest | record | {"files": files})
        if folder.exists():  # one whose files were damaged, or find() would have had it
            shutil.rmtree(folder)
        work.replace(folder)
        return folder

    def _work_path(self, stage: Stage) -> Path:
        return self.root / stage.kind / f".work-{stage.key}"

    def _folder(self, stage: Stage) -> Path:
        return self.root / stage.kind / stage.key


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
