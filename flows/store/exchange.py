"""What goes between a machine's store and the remote that it shares. A remote that is away loses nothing."""

import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flows.store.manifest import MANIFEST, describe_files, misfits, read_manifest, write_synced
from flows.store.remote_files import UnreachableError
from flows.store.remote_lock import RemoteLock
from flows.store.remote_store import DamagedError, RemoteStore
from pcd.errors import PCDError
from pcd.os_errors import plain_os_errors

__all__ = ["Exchange", "sum_of"]


class Exchange:
    """<root>/<kind>/.push-<key> marks what was committed and not uploaded yet; .fetch-<key>/ is on its way here."""

    def __init__(self, root: Path, remote: RemoteStore, note: Callable[[str], None]) -> None:
        """`note` is told, in a line each, of what did not go as it should and hinders nothing."""
        self.remote, self._note = remote, note
        self.lease_seconds: float = 120
        """A lock in the remote whose holder was not heard of for so long is taken over."""
        self._root = root
        self._damaged: set[str] = set()
        self._told_of_silence = False

    def keys(self, kind: str) -> set[str]:
        """What the remote has finished; nothing, if it does not answer."""
        try:
            return self.remote.keys().get(kind, set())
        except UnreachableError as error:
            if not self._told_of_silence:  # not for each of a thousand stages
                self._note(f"{error}; what only it has is counted as still to run")
            self._told_of_silence = True
            return set()

    def fetch(self, kind: str, key: str, progress: Callable[[int, int], None]) -> Path | None:
        """A whole stage with its manifest, in a folder to be renamed; None if it is not to be had."""
        beside = self._root / kind / f".fetch-{key}"
        try:
            manifest = self.remote.manifest(kind, key)
            if manifest is None:
                return None
            beside.mkdir(parents=True, exist_ok=True)
            self.remote.fetch(kind, manifest, beside, sum_of(manifest, progress))
        except DamagedError as error:
            self._damaged.add(key)
            self._note(f"{error}; it is computed again")
            return None
        except UnreachableError as error:
            self._note(f"{error}; what it may have of {kind} {key[:12]} is computed again")
            return None
        describe_files(beside)  # for its fsyncs
        write_synced(beside / MANIFEST, json.dumps(manifest, indent=2) + "\n")
        return beside

    def mark(self, kind: str, key: str) -> None:
        """To be uploaded. Written before the commit's rename: a kill between the two leaves a mark too many."""
        write_synced(self._mark(kind, key), "")

    def pending(self) -> list[tuple[str, str]]:
        """Kind and key of each stage that was committed here and is not known to be in the remote."""
        marks = sorted(self._root.glob("*/.push-*"))
        return [(path.parent.name, path.name.removeprefix(".push-")) for path in marks]

    def upload(self, kind: str, key: str, progress: Callable[[int], None] = lambda _: None) -> None:
        """Raises UnreachableError or PCDError, and can then be tried again: what was uploaded is not sent twice."""
        folder = self._root / kind / key
        manifest = read_manifest(folder)
        if manifest is not None and not misfits(folder, manifest):  # else it is gone, or a damage that must not spread
            self.remote.upload(folder, kind, manifest, replace=key in self._damaged, progress=progress)
            self._damaged.discard(key)
        self._mark(kind, key).unlink(missing_ok=True)

    def is_damaged(self, kind: str, key: str, progress: Callable[[int], None] = lambda _: None) -> bool:
        """Reads every byte that the remote has of a stage; the next upload replaces it if one is wrong."""
        manifest = self.remote.manifest(kind, key)
        if manifest is None or self.remote.damaged_files(kind, manifest, progress):
            self._damaged.add(key)
        return key in self._damaged

    def upload_pending(self, kind: str, key: str) -> None:
        """This stage, then those that earlier commits could not upload. Never raises: all can go later."""
        try:
            for stage in dict.fromkeys([(kind, key), *self.pending()]):
                self.upload(*stage)
        except (UnreachableError, PCDError, OSError) as error:
            left = len(self.pending())
            what = "it follows" if left == 1 else f"{left} stages follow"
            self._note(f"not uploaded: {error}; {what} with the next finished stage, or by `pcd store push`")

    @contextmanager
    def lock(self, kind: str, key: str, wait: Callable[[float], None]) -> Iterator[None]:
        """The remote's lock, with the local one held. If the remote does not answer, the block is entered without."""
        name = f"{kind}/.lock-{key}"
        lock = RemoteLock(self.remote.files, name, self._identity(), lease_seconds=self.lease_seconds)
        try:
            lock.acquire(wait)
        except UnreachableError as error:
            self._note(f"{error}; another machine may compute {kind} {key[:12]} as well")
            yield
        else:
            with lock.renewed():
                yield

    def _identity(self) -> str:
        """This store's own name in a shared lock, made once."""
        from filelock import FileLock  # it imports asyncio: a tenth of a second, which plans have no use for

        path = self._root / ".identity"
        with plain_os_errors(path), FileLock(path.with_name(".identity-lock")):
            if not path.exists():
                write_synced(path, uuid.uuid4().hex)
            return path.read_text()

    def _mark(self, kind: str, key: str) -> Path:
        return self._root / kind / f".push-{key}"


def sum_of(manifest: dict[str, Any], progress: Callable[[int, int], None]) -> Callable[[int], None]:
    """From the bytes of one file to the bytes so far, and of all."""
    done, total = 0, sum(file["bytes"] for file in manifest["files"].values())

    def add(length: int) -> None:
        nonlocal done
        done += length
        progress(done, total)

    return add
