"""A tiny process that stays when `pcd` is gone: it ends what pcd had started, and has the run closed truthfully.

It holds the read end of a pipe. As long as pcd lives, the pipe is open. If pcd ends and the run's record is gone by
then, all was in order; else there is something left to tell, whether pcd was killed or nobody listened. Started as
`python -m flows.supervision.warden`, in a session of its own, so that neither Ctrl-C nor the terminal's end reaches it.
It imports next to nothing until it is needed, since it waits for days.
"""

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Final

__all__ = ["END_SERVERS", "RECONCILE", "Warden", "start_warden"]

RECONCILE: Final = "flows.reconcile:reconcile"
"""Called with the home and the run's record once no process of the run is left."""
END_SERVERS: Final = "flows.reconcile:end_servers"
"""The same, of a `pcd` that was killed before it had a run."""

_DONE: Final = b"done"
_LOOK_EVERY_SECONDS: Final = 10.0
_END_SECONDS: Final = 0.05


class Warden:
    """As a context manager: on leaving, it is told that all is in order, or stays until this process ends."""

    def __init__(self, process: subprocess.Popen[bytes], record: Path) -> None:
        self.process = process
        self.record = record

    def __enter__(self) -> "Warden":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.record.exists():
            _STAY.append(self)
        else:
            self.done()

    def done(self) -> None:
        """All is closed: there is nothing left for it to do."""
        pipe = self.process.stdin
        assert pipe is not None
        if not pipe.closed:
            try:
                pipe.write(_DONE)
                pipe.close()
            except BrokenPipeError:  # somebody killed it
                pass
        self.process.wait()


_STAY: Final[list[Warden]] = []
"""Wardens whose runs may be closed behind their flow, or never; their pipes stay open as long as this process lives."""


def start_warden(home: Path, record: Path, *, stop_seconds: float | None = 60.0, then: str = RECONCILE) -> Warden:
    """Start a warden over this process.

    Args:
        record: what `then` is to close; where it does not exist, nothing is done.
        stop_seconds: what the stages get for a checkpoint when this process was killed; None leaves them alone.
        then: module:function, called as then(home, record).
    """
    from flows.supervision.processes import SUPERVISOR_MARK, identity

    (home / "logs").mkdir(parents=True, exist_ok=True)
    path = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
    # It is no stage, and must not be ended as one.
    environment = {k: v for k, v in os.environ.items() if k != SUPERVISOR_MARK} | {"PYTHONPATH": path}
    arguments = [str(home), str(record), identity(), "" if stop_seconds is None else f"{stop_seconds:g}", then]
    with (home / "logs" / "warden.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "flows.supervision.warden", *arguments],
            stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment, start_new_session=True,
        )  # fmt: skip
    return Warden(process, record)


def _watch(pcd: str) -> bool:
    """Wait until `pcd` has ended; returns whether in order."""
    from pcd.process_identity import is_alive

    while True:
        ready, _, _ = select.select([0], [], [], _LOOK_EVERY_SECONDS)
        # Something that pcd forked may hold the pipe open longer than pcd lives.
        if ready and os.read(0, len(_DONE)) == _DONE:
            return True
        while ready and is_alive(pcd):  # the pipe is closed a moment before the process is gone
            time.sleep(_END_SECONDS)
        if not is_alive(pcd):
            return False


def _clean_up(home: Path, record: Path, pcd: str, stop_seconds: float | None, then: str) -> None:
    import logging
    from importlib import import_module

    from flows.logins import LoginlessFormatter
    from flows.supervision.processes import descendants_of, end_processes

    handler = logging.StreamHandler()
    form = logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s")
    handler.setFormatter(LoginlessFormatter(form))
    logging.basicConfig(handlers=[handler])
    if stop_seconds is not None:
        left = descendants_of(pcd)
        print(f"pcd (pid {pcd.partition(':')[0]}) is gone; {len(left)} of its processes are left", flush=True)
        end_processes(left, stop_seconds)
    module, _, function = then.partition(":")
    told = getattr(import_module(module), function)(home, record)
    print(f"closed: {told}", flush=True)


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # whoever sends them to all means pcd, and we follow
        signal.signal(number, signal.SIG_IGN)
    home, record, pcd, stop_seconds, then = sys.argv[1:]
    if not _watch(pcd) and Path(record).exists():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)  # whatever is started now should not inherit our deafness
        _clean_up(Path(home), Path(record), pcd, float(stop_seconds) if stop_seconds else None, then)


if __name__ == "__main__":
    main()
