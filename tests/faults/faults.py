"""What may befall a run. Each fault is done to the real processes; the run has begun when it comes."""

import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from subprocess import Popen
from typing import Final

import psutil

from tests.faults.world import World

Fault = Callable[[World, "Popen[str]"], None]

_WAIT_SECONDS: Final = 240


def kill_trainer(world: World, run: "Popen[str]") -> None:
    """The out-of-memory killer: one process of a stage, whichever runs."""
    for process in _wait_for_trainers(world, run)[:1]:
        _send(process, signal.SIGKILL)


def hang_trainer(world: World, run: "Popen[str]") -> None:
    """A stage that neither goes on nor listens."""
    for process in _wait_for_trainers(world, run):
        _send(process, signal.SIGSTOP)


def kill_supervisor(world: World, run: "Popen[str]") -> None:
    """The `pcd` process itself, which is the flow's too."""
    run.kill()


def kill_whole_machine(world: World, run: "Popen[str]") -> None:
    """The power fails: nobody is left to close anything."""
    for _ in range(3):  # one may be starting another just now
        world.end_all()


def terminate(world: World, run: "Popen[str]") -> None:
    """A batch system's SIGTERM."""
    run.terminate()


def interrupt(world: World, run: "Popen[str]") -> None:
    """Ctrl-C, as a terminal sends it: to the whole foreground group."""
    with suppress(ProcessLookupError):
        os.killpg(run.pid, signal.SIGINT)


def kill_prefect_server(world: World, run: "Popen[str]") -> None:
    """The run's own server; the user's own is another test's."""
    for process in world.processes():
        with suppress(psutil.Error):
            if "prefect" in process.cmdline() and "server" in process.cmdline():
                _send(process, signal.SIGKILL)
    _send_children_of_servers(world)


FAULTS: Final[dict[str, Fault]] = {
    "kill -9 of the trainer": kill_trainer,
    "a trainer that hangs": hang_trainer,
    "kill -9 of pcd": kill_supervisor,
    "kill -9 of all at once": kill_whole_machine,
    "SIGTERM to pcd": terminate,
    "Ctrl-C": interrupt,
    "kill -9 of the Prefect server": kill_prefect_server,
}


def strike(world: World, fault: Fault, after: float, *options: str) -> int:
    """Start a run, let the fault come `after` seconds, and run to the end. Returns the exit code of the struck run."""
    run = world.start(*options)
    try:
        with suppress(TimeoutError):
            _sleep_while_running(run, after)
        if run.poll() is None:
            fault(world, run)
        return run.wait(_WAIT_SECONDS)
    except BaseException:
        world.end_all()
        raise


def moments(count: int, whole: float, seed: int) -> list[float]:
    """Random points of a run that takes `whole` seconds, the same for the same seed."""
    draw = random.Random(seed)
    return [round(draw.uniform(0.0, whole), 2) for _ in range(count)]


def _sleep_while_running(run: "Popen[str]", seconds: float) -> None:
    end = time.monotonic() + seconds
    while run.poll() is None and time.monotonic() < end:
        time.sleep(0.02)


def _wait_for_trainers(world: World, run: "Popen[str]") -> list[psutil.Process]:
    while run.poll() is None:
        if trainers := world.trainers():
            return trainers
        time.sleep(0.05)
    return []


def _send(process: psutil.Process, number: int) -> None:
    with suppress(psutil.Error):
        process.send_signal(number)


def _send_children_of_servers(world: World) -> None:
    """`prefect server start` runs the server in a child."""
    for process in world.processes():
        with suppress(psutil.Error):
            if any("prefect.server" in argument for argument in process.cmdline()):
                _send(process, signal.SIGKILL)
