"""Who computes on which GPU of this machine: a stage takes all that it needs at once, or waits in a queue.

Each device has a lock file in a folder that all of a user's runs share. Its lock is held by the `pcd` process, and goes
with it; a device is free only when the stage's own processes are gone as well, which carry the lease in their
environment. Where there are no GPUs, the same locks guard slots of the CPU.

$PCD_LOCKS or /tmp/pcd-locks-<user id>/
    allocate          locked for the moment in which somebody looks and takes
    <device>.lock     who holds it, for people and for whoever comes after a crash
    waiting-*.json    the queue: who came first is served first, and what it needs is kept for it
"""

import fcntl
import itertools
import json
import os
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

import psutil

from flows.planning.stages import Stage
from flows.settings import Runtime
from flows.supervision.inventory import Inventory, find_devices, list_gpus
from flows.supervision.processes import identity, is_alive, marked_processes
from pcd.errors import PCDError, StageStoppedError
from pcd.stage import write_json

__all__ = [
    "DEVICES",
    "LEASE",
    "Devices",
    "Waiting",
    "are_all_free",
    "lease",
    "lease_devices",
    "lock_folder",
    "waiting_leases",
]

DEVICES: Final = "PCD_DEVICES"
"""Names of the devices that a stage holds, with commas, in its environment."""
LEASE: Final = "PCD_LEASE"
"""Marks the processes that may use a leased device."""
_POLL_SECONDS: Final = 0.5
_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class Devices:
    """What a stage has for itself while it runs."""

    names: tuple[str, ...]
    environment: dict[str, str]
    """Makes the stage see these devices, and no others."""
    threads: int
    """CPU threads for each of its processes."""
    of: int
    """How many of the kind this machine has, for us or for others."""

    @property
    def kind(self) -> Literal["gpu", "cpu"]:
        return "gpu" if self.environment["CUDA_VISIBLE_DEVICES"] else "cpu"


@dataclass(frozen=True, slots=True)
class Waiting:
    """A place in the queue."""

    process: str
    """Identity of the `pcd` process."""
    stage: str
    count: int
    names: tuple[str, ...]
    """The devices that would do."""


@contextmanager
def lease_devices(
    stage: Stage, runtime: Runtime, on_wait: Callable[[str], None], stop: threading.Event
) -> Iterator[Devices]:
    """What `stage` needs on this machine: a GPU for each of its ranks, one for one that computes alone, or a CPU slot.

    Args:
        on_wait: told who holds what is needed, once for each holder.

    Raises:
        StageStoppedError: `stop` was set while it waited.
        PCDError: this machine has fewer devices than the stage has ranks here.
    """
    processes = runtime.processes if stage.distributed else 1
    computes = stage.distributed or stage.on_device or stage.beside
    inventory = find_devices(runtime.device if computes else "cpu", runtime.parallel)
    # Several ranks on the CPU share what slots there are; several ranks on one GPU would be slower than one.
    count = processes if inventory.has_gpus else min(processes, len(inventory.names))
    with lease(inventory, count, on_wait, stop, stage.id) as (names, mark):
        cores = inventory.cores * len(names) // len(inventory.names)
        threads = runtime.threads or max(1, cores // processes)
        seen = [inventory.visible[inventory.names.index(name)] for name in names]
        environment = {
            DEVICES: ",".join(names),
            LEASE: mark,
            "CUDA_VISIBLE_DEVICES": ",".join(filter(None, seen)),
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads)),
        }
        there = max(len(list_gpus()), len(inventory.names)) if inventory.has_gpus else len(inventory.names)
        yield Devices(names, environment, threads, there)


@contextmanager
def lease(
    inventory: Inventory, count: int, on_wait: Callable[[str], None], stop: threading.Event, stage: str = ""
) -> Iterator[tuple[tuple[str, ...], str]]:
    """`count` of the inventory's devices, all or none: their names, and the lease's mark (see LEASE)."""
    if count > len(inventory.names):
        raise PCDError(
            f"{stage} needs {count} GPUs and may use {len(inventory.names)} on this machine; "
            "lower runtime.processes, or set runtime.device=cpu"
        )
    folder, number = lock_folder(), next(_numbers)
    ticket = folder / f"waiting-{time.monotonic_ns():020}-{os.getpid()}-{number}.json"
    try:
        taken = _wait(folder, ticket, Waiting(identity(), stage, count, inventory.names), on_wait, stop)
    finally:
        ticket.unlink(missing_ok=True)
    try:
        yield tuple(taken), f"{folder}:{identity()}/{number}"
    finally:
        for file in taken.values():
            os.ftruncate(file, 0)
            os.close(file)


def _wait(
    folder: Path, ticket: Path, me: Waiting, on_wait: Callable[[str], None], stop: threading.Event
) -> dict[str, int]:
    """Name of each device to the open file that holds its lock."""
    told = None
    while not stop.is_set():
        if not ticket.exists():
            write_json(ticket, asdict(me))
        taken, in_the_way = _try(folder, ticket)
        if not in_the_way:
            return taken
        if in_the_way != told:
            on_wait(in_the_way)
            told = in_the_way
        stop.wait(_POLL_SECONDS)
    raise StageStoppedError("stopped while it waited for a device")


def _try(folder: Path, ticket: Path) -> tuple[dict[str, int], str]:
    """What was taken, or who is in the way."""
    with ExitStack() as stack:
        turn = os.open(folder / "allocate", os.O_RDWR | os.O_CREAT, 0o600)
        stack.callback(os.close, turn)
        fcntl.flock(turn, fcntl.LOCK_EX)  # held for a moment only, and the kernel gives it back for whoever dies
        queue = list(_queue(folder, until=ticket))
        used = _used(folder)
        free: dict[str, int] = {}
        holders: list[str] = []
        for name in dict.fromkeys(name for waiting in queue for name in waiting.names):
            file, told = _take(folder, name, used)
            if file is None:
                holders.append(told)
            else:
                free[name] = file
                stack.callback(os.close, file)
        *earlier, mine = queue
        for waiting in earlier:  # kept for those who came first, though they cannot use them yet
            for name in [name for name in waiting.names if name in free][: waiting.count]:
                del free[name]
        chosen = [name for name in mine.names if name in free][: mine.count]
        if len(chosen) < mine.count:
            return {}, ", ".join(dict.fromkeys(holders)) or f"{earlier[0].stage} (in the queue)"
        taken = {name: os.dup(free[name]) for name in chosen}  # the lock goes with the last of a file's descriptors
        for name, file in taken.items():
            os.pwrite(file, json.dumps({"pid": os.getpid(), "stage": mine.stage, "device": name}).encode(), 0)
        return taken, ""


def _queue(folder: Path, until: Path | None = None) -> Iterator[Waiting]:
    """In the order of their coming, up to and with `until`; those whose process is dead are removed."""
    for path in sorted(folder.glob("waiting-*.json")):
        try:
            raw = json.loads(path.read_text())
            waiting = Waiting(**raw | {"names": tuple(raw["names"])})
        except (OSError, ValueError, TypeError, KeyError):  # served just now
            continue
        if is_alive(waiting.process):
            yield waiting
        else:
            path.unlink(missing_ok=True)
        if path == until:
            return


def _take(folder: Path, name: str, used: Mapping[str, int]) -> tuple[int | None, str]:
    """The open file with the device's lock, or who holds it."""
    file = os.open(folder / f"{name.replace('/', '_')}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        told = _holder(file)
        os.close(file)
        return None, f"{told.get('stage', 'another run')} (pid {told.get('pid', '?')})"
    if name in used:
        told = _holder(file)
        os.close(file)
        return None, f"{told.get('stage', 'a stage')} of a run that was killed (pid {used[name]}, about to end)"
    os.ftruncate(file, 0)
    return file, ""


def _used(folder: Path) -> dict[str, int]:
    """Devices on which processes of a stage still live, also if its lock is gone or somebody has tidied /tmp."""
    used: dict[str, int] = {}
    for process in marked_processes(lambda environment: environment.get(LEASE, "").startswith(f"{folder}:")):
        with suppress(psutil.Error):
            used |= dict.fromkeys(process.environ().get(DEVICES, "").split(","), process.pid)
    return used


def _holder(file: int) -> dict[str, Any]:
    """Empty where it was given back."""
    try:
        told: dict[str, Any] = json.loads(os.pread(file, 10_000, 0))
    except ValueError:
        return {}
    return told


def are_all_free() -> bool:
    """Whether no run of this user holds a device of this machine."""
    folder = lock_folder()
    for path in folder.glob("*.lock"):
        with path.open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
    return not _used(folder)


def waiting_leases() -> list[Waiting]:
    """The queue, for `pcd status`."""
    return list(_queue(lock_folder()))


def lock_folder() -> Path:
    """$PCD_LOCKS, or a folder of this user's own that all of the user's runs find, whatever their TMPDIR.

    Raises PCDError if it is not ours alone to write to.
    """
    shared = Path("/tmp" if os.path.isdir("/tmp") else tempfile.gettempdir())  # noqa: S108, PTH112
    folder = Path(os.environ.get("PCD_LOCKS") or shared / f"pcd-locks-{os.getuid()}")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise PCDError(f"cannot use the lock folder {folder} ({error.strerror}); set PCD_LOCKS to another") from None
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise PCDError(f"the lock folder {folder} is not this user's alone; set PCD_LOCKS to another one")
    return folder
