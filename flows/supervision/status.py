"""What runs on this machine below one home, where its log is, and how to stop it: plain answers, from files alone."""

import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from flows.journal import read_journals
from flows.store.store import Store
from flows.supervision.devices import waiting_leases
from flows.supervision.heartbeat import HEARTBEAT, Heartbeat, read_heartbeats
from flows.supervision.processes import is_alive
from flows.supervision.supervisor import ENDED, STOP_REQUEST
from pcd.errors import PCDError, unknown_name

__all__ = [
    "RunStatus", "StageStatus", "Status", "cell_of", "log_of", "read_status", "running_stage", "stop_run", "stop_stage",
    "store_roots",
]  # fmt: skip

_POLL_SECONDS: Final = 0.2
_DONE: Final = ("done", "cached")


@dataclass(frozen=True, slots=True, kw_only=True)
class StageStatus:
    """A stage that runs, or whose `pcd` process died."""

    stage: str
    cell: str
    """The stage's id without its kind; empty for teacher, data and aggregate."""
    benchmark: str | None
    part: str | None
    """Of the store: a rerun's name."""
    devices: tuple[str, ...]
    phase: str
    step: int | None
    total: int | None
    rate: float | None
    """Steps a second."""
    eta: float | None
    """Seconds left of this phase."""
    running_for: float | None
    """Seconds; None if it is dead."""
    heartbeat_age: float | None
    """Seconds; None if it is dead."""
    pid: int
    pcd_pid: int
    is_alive: bool
    """False: its `pcd` process is dead, and the next run closes it."""
    log: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStatus:
    """A benchmark that is under way, or whose process died before it was closed."""

    name: str
    id: str
    pid: int
    is_alive: bool
    stages: int
    done: int
    """Finished, or found in the store."""
    failed: int
    running: int
    waits_for: str | None
    """What holds it, if none of its stages runs."""


@dataclass(frozen=True, slots=True)
class Status:
    runs: tuple[RunStatus, ...]
    stages: tuple[StageStatus, ...]


def store_roots(home: Path) -> list[Path]:
    """The store, and the parts of it that reruns have for themselves."""
    return [home / "store", *sorted((home / "reruns").glob("*/store"))]


def cell_of(stage: str) -> str:
    """pcd.fpn_1x.seed0 of finetune:pcd.fpn_1x.seed0."""
    return stage.partition(":")[2]


def read_status(home: Path) -> Status:
    """Never waits, and starts no server."""
    journals = read_journals(home)
    names = {journal.run.process: journal.run.name for journal in journals}
    # A dead run that is closed already has left its stages' last beats behind, until they are run again.
    beats = [beat for beat in read_heartbeats(store_roots(home)) if beat.is_alive or beat.supervisor in names]
    waiting = {lease.process: lease for lease in waiting_leases()}
    runs = []
    for journal in journals:
        run, events = journal.run, [event.status for event in journal.stages.values()]
        running = sum(beat.supervisor == run.process for beat in beats)
        lease = waiting.get(run.process)
        idle = f"devices for {lease.stage}" if lease else "another run's stage, or its servers"
        runs.append(
            RunStatus(
                name=run.name, id=run.id, pid=int(run.process.partition(":")[0]), is_alive=is_alive(run.process),
                stages=len(run.stages), done=sum(status in _DONE for status in events), failed=events.count("failed"),
                running=running, waits_for=None if running or not is_alive(run.process) else idle,
            )
        )  # fmt: skip
    return Status(tuple(runs), tuple(_describe(beat, names, home) for beat in beats))


def _describe(beat: Heartbeat, names: dict[str, str], home: Path) -> StageStatus:
    alive, root = beat.is_alive, beat.work.parents[1]
    return StageStatus(
        stage=beat.stage, cell=cell_of(beat.stage), benchmark=names.get(beat.supervisor),
        part=None if root == home / "store" else root.parent.name, devices=beat.devices, phase=beat.phase,
        step=beat.step, total=beat.total, rate=beat.rate, eta=beat.eta if alive else None,
        running_for=time.monotonic() - beat.started_at if alive else None, heartbeat_age=beat.age if alive else None,
        pid=beat.pid, pcd_pid=int(beat.supervisor.partition(":")[0]), is_alive=alive, log=str(beat.work / "log.txt"),
    )  # fmt: skip


# One stage, by its id or its cell.


def log_of(home: Path, name: str) -> Path:
    """The log of the stage that runs now, or of the one that ran last, finished or not.

    Raises PCDError if there is none of this id or cell.
    """
    for beat in read_heartbeats(store_roots(home)):
        if beat.is_alive and _is(beat.stage, name):
            return beat.work / "log.txt"
    logs = [(stage, log) for root in store_roots(home) for stage, log in _logs(root)]
    matching = [log for stage, log in logs if _is(stage, name)]
    if not matching:
        raise _no_stage(name, {stage for stage, _ in logs}, "no stage has left a log here yet; run one: pcd run demo")
    return max(matching, key=lambda log: log.stat().st_mtime)


def running_stage(home: Path, name: str) -> Heartbeat:
    """Raises PCDError if no such stage runs."""
    beats = [beat for beat in read_heartbeats(store_roots(home)) if beat.is_alive]
    matching = [beat for beat in beats if _is(beat.stage, name)]
    if not matching:
        raise _no_stage(name, {beat.stage for beat in beats}, "nothing runs here")
    return matching[-1]


def stop_stage(home: Path, name: str) -> str:
    """Ask the stage's supervisor to stop it, and wait until it has; the run goes on with its other stages.

    Returns how it ended. Raises PCDError if no such stage runs.
    """
    beat = running_stage(home, name)
    request, heartbeat = beat.work / STOP_REQUEST, beat.work / HEARTBEAT
    try:
        request.touch()
    except FileNotFoundError:  # it was finished just now, and the folder has got its place in the store
        return f"{beat.stage} had just finished"
    while beat.is_alive and heartbeat.exists():
        time.sleep(_POLL_SECONDS)
    if heartbeat.exists():  # the supervisor removes it last
        return f"{beat.stage}: its pcd process ended as well; the next run goes on from the last checkpoint"
    try:
        return f"{beat.stage} {json.loads((beat.work / ENDED).read_text())['how']}"
    except (OSError, ValueError, KeyError):
        pass
    error = beat.work / "error.txt"
    return f"{beat.stage} failed: {error.read_text()}" if error.exists() else f"{beat.stage} had just finished"


def stop_run(process: str) -> None:
    """SIGTERM to a `pcd` process, named by its identity: all its stages save their checkpoints.

    Raises PCDError if it has ended, or is another user's.
    """
    pid = int(process.partition(":")[0])
    try:
        handle = os.pidfd_open(pid)  # holds on to this process, whoever gets its id afterwards
    except ProcessLookupError:
        raise PCDError(f"the pcd process {pid} has ended already") from None
    try:
        if not is_alive(process):
            raise PCDError(f"the pcd process {pid} has ended already")
        signal.pidfd_send_signal(handle, signal.SIGTERM)
    except PermissionError:
        raise PCDError(f"the pcd process {pid} is another user's; ask them to stop it") from None
    finally:
        os.close(handle)


def _is(stage: str, name: str) -> bool:
    return name in (stage, cell_of(stage))


def _no_stage(name: str, known: set[str], if_none: str) -> PCDError:
    if not known:
        return PCDError(if_none)
    shortest = {cell_of(stage) or stage for stage in known}
    return unknown_name("cell or stage", name, known if ":" in name else shortest)


def _logs(root: Path) -> Iterator[tuple[str, Path]]:
    """(id, log) of the stages that this store has, finished or under way."""
    for folder in root.glob("*/.work-*"):
        try:
            stage = str(json.loads((folder / "spec.json").read_text())["stage"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if (folder / "log.txt").exists():
            yield stage, folder / "log.txt"
    for folder, manifest in Store(root).manifests():
        if (folder / "log.txt").exists():
            yield str(manifest["stage"]), folder / "log.txt"
