"""What may befall a run. Each fault is done to the real processes, while the run goes on."""

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
from tests.servers import MlflowServer, PrefectServer, Server, free_port

__all__ = ["FAULTS", "Fault", "moments", "provide_servers", "strike"]

Fault = Callable[[World, "Popen[str]"], None]

_WAIT_SECONDS: Final = 400
_AWAY_SECONDS: Final = 8


def kill_trainer(world: World, run: "Popen[str]") -> None:
    """The out-of-memory killer: one process of a stage, whichever runs."""
    for process in _wait_for_trainers(world, run)[:1]:
        _send(process, signal.SIGKILL)


def hang_trainer(world: World, run: "Popen[str]") -> None:
    """A stage that neither goes on nor listens."""
    for process in _wait_for_trainers(world, run):
        _send(process, signal.SIGSTOP)


def kill_pcd(world: World, run: "Popen[str]") -> None:
    """The `pcd` process itself, which is supervisor and flow."""
    run.kill()


def kill_all_at_once(world: World, run: "Popen[str]") -> None:
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


def kill_own_prefect_server(world: World, run: "Popen[str]") -> None:
    """The temporary one that lives as long as the run."""
    for process in world.processes():
        with suppress(psutil.Error):
            command = " ".join(process.cmdline())
            if "prefect server" in command or "prefect.server" in command:
                process.kill()


def kill_prefect_server(world: World, run: "Popen[str]") -> None:
    """The user's own, which comes back after a while."""
    _kill_for_a_while(world.prefect)


def kill_mlflow_server(world: World, run: "Popen[str]") -> None:
    _kill_for_a_while(world.mlflow)


FAULTS: Final[dict[str, Fault]] = {
    "kill -9 of the trainer": kill_trainer,
    "a trainer that hangs": hang_trainer,
    "kill -9 of pcd": kill_pcd,
    "kill -9 of everything at once": kill_all_at_once,
    "SIGTERM to pcd": terminate,
    "Ctrl-C": interrupt,
    "kill -9 of the run's own Prefect server": kill_own_prefect_server,
    "kill -9 of the user's Prefect server": kill_prefect_server,
    "kill -9 of the MLflow server": kill_mlflow_server,
}


def provide_servers(world: World, fault: Fault) -> None:
    """The servers that this fault strikes."""
    if fault is kill_prefect_server and world.prefect is None:
        world.prefect = PrefectServer(world.folder / "prefect-server", free_port())
        world.prefect.start()
    if fault is kill_mlflow_server:
        world.mlflow = MlflowServer(world.folder / "mlflow-server", free_port())
        world.mlflow.start()


def strike(world: World, fault: Fault, *, after: float = 0.0, steps: int = 0) -> int | None:
    """Start a run; the fault comes `after` seconds, when so many steps more are done.

    Returns the run's exit code, or None if it was over before the fault came.
    """
    begun_with = world.steps_done()
    run = world.start()
    end = time.monotonic() + after
    while run.poll() is None and (time.monotonic() < end or world.steps_done() - begun_with < steps):
        time.sleep(0.02)
    if run.poll() is not None:
        return None
    fault(world, run)
    return run.wait(_WAIT_SECONDS)


def moments(count: int, whole: float, seed: int) -> list[float]:
    """Random points of a run that takes `whole` seconds, the same for the same seed."""
    draw = random.Random(seed)
    return [round(draw.uniform(0.0, whole), 2) for _ in range(count)]


def _kill_for_a_while(server: Server | None) -> None:
    assert server is not None  # provide_servers gave it
    server.kill()
    time.sleep(_AWAY_SECONDS)
    server.start()


def _wait_for_trainers(world: World, run: "Popen[str]") -> list[psutil.Process]:
    while run.poll() is None:
        if trainers := world.trainers():
            return trainers
        time.sleep(0.05)
    return []


def _send(process: psutil.Process, number: int) -> None:
    with suppress(psutil.Error):
        process.send_signal(number)
