"""A lock that machines without a common file system share: one object in the remote store.

Whoever creates the object holds the lock, and renews its content while it lives. A waiter takes it over when the
content has not changed for a lease time by the waiter's own monotonic clock: no two clocks are compared, so a clock
that jumps or is wrong does no harm.

What it cannot promise: a holder that is cut off from the remote for a lease time loses the lock and goes on computing,
and two waiters may (within the second between writing and reading back) both believe that they took it over. Then a
stage is computed twice. A result is never wrong for it: uploads do not mix, and the first whole one stays.
"""

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from flows.store.remote_files import RemoteFiles, UnreachableError
from pcd.errors import PCDError

__all__ = ["RemoteLock"]

_BEATS_PER_LEASE: Final = 6


class RemoteLock:
    """Of one key; not to be entered twice at once."""

    def __init__(
        self, remote: RemoteFiles, name: str, home: str, *, lease_seconds: float = 120, poll_seconds: float = 1
    ) -> None:
        """`home` tells our own machine's store: with its local lock held, a lock that names it is a dead process's."""
        self._remote, self._name, self._home = remote, name, home
        self._lease, self._poll = lease_seconds, poll_seconds
        self._token = uuid.uuid4().hex
        self._beat = 0

    def acquire(self, wait: Callable[[float], None]) -> None:
        """`wait(seconds)` sleeps between two looks, and may raise to give up.

        Raises UnreachableError if the remote cannot be asked, while waiting for another if it cannot be for a lease
        time, and PCDError if it refuses us.
        """
        seen: bytes | None = None
        since = heard = time.monotonic()
        while True:
            try:
                content = self._remote.read(self._name)
                heard = time.monotonic()
                if content is None:
                    if self._remote.create(self._name, self._content()) and self._is_ours():
                        return
                elif content != seen:
                    seen, since = content, heard
                    if _field(content, "home") == self._home and self._take_over():
                        return  # a dead process's of this machine: we have the local lock
                elif heard - since > self._lease and self._take_over():
                    return
            except UnreachableError:
                if seen is None or time.monotonic() - heard > self._lease:
                    raise
                since = time.monotonic()  # its holder may be cut off as we are, and be back when we are
            wait(self._poll)

    @contextmanager
    def renewed(self) -> Iterator[None]:
        """Hold what was acquired until the block ends; neither a remote that is away nor a lost lock ends it."""
        done = threading.Event()
        renewals = threading.Thread(target=self._renew, args=(done,), name="remote-lock", daemon=True)
        renewals.start()
        try:
            yield
        finally:
            done.set()
            renewals.join()
            self._release()

    def _take_over(self) -> bool:
        """Write, let others who do the same write too, and see whose content stayed."""
        self._remote.write(self._name, self._content())
        time.sleep(self._poll)
        return self._is_ours()

    def _renew(self, done: threading.Event) -> None:
        while not done.wait(self._lease / _BEATS_PER_LEASE):
            try:
                if not self._is_ours():
                    return  # taken over, since we were not heard of for a lease time; the work goes on
                self._beat += 1
                self._remote.write(self._name, self._content())
            except (UnreachableError, PCDError):
                continue  # the remote is away for a while; a lost lock never ends work

    def _release(self) -> None:
        try:
            if self._is_ours():
                self._remote.remove(self._name)
        except (UnreachableError, PCDError):
            pass  # it runs out by itself

    def _content(self) -> bytes:
        return json.dumps({"holder": self._token, "home": self._home, "beat": self._beat}).encode()

    def _is_ours(self) -> bool:
        return _field(self._remote.read(self._name), "holder") == self._token


def _field(content: bytes | None, name: str) -> str | None:
    try:
        value = json.loads(content or b"")[name]
    except (ValueError, KeyError, TypeError):  # half written
        return None
    return str(value)
