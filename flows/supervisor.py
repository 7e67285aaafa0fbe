"""Runs a stage as a process of its own: starts it, follows its metrics, stops it, says how it ended."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from flows.home import home
from flows.plan import Stage
from flows.settings import Runtime
from pcd.errors import PCDError, StageFailedError
from pcd.settings import StageRuntime
from pcd.stage import EXIT_USER_ERROR, write_json
from pcd.teachers.fetch import MIRROR_VARIABLE

__all__ = ["MetricLine", "run_process", "stage_command", "stop_group", "write_spec"]

MetricLine = dict[str, Any]
"""One line of metrics.jsonl: step, total, time, and figures."""

_POLL_SECONDS: Final = 0.2
_LAST_LINES: Final = 12
_FOREIGN_TO_STAGES: Final = ("MLFLOW_", "PREFECT_")


def write_spec(stage: Stage, work: Path, inputs: dict[str, Path], runtime: Runtime) -> Path:
    spec = {
        "stage": stage.id,
        "title": stage.id,
        "settings": stage.settings,
        "inputs": {name: str(folder) for name, folder in inputs.items()},
        "out": str(work),
        "runtime": {
            **runtime.model_dump(mode="json", include=set(StageRuntime.model_fields)),
            "threads": runtime.threads or max(1, _cores() // (runtime.processes if stage.distributed else 1)),
            "home": str(home()),
            "teacher_mirror": os.environ.get(MIRROR_VARIABLE),
            **(stage.runtime or {}),
        },
    }
    path = work / "spec.json"
    write_json(path, spec)
    return path


def _cores() -> int:
    """Those that we may use: a container or a batch system may give fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def stage_command(stage: Stage, spec: Path, runtime: Runtime) -> list[str]:
    """What starts the stage, by hand as well."""
    if not stage.distributed or runtime.processes * runtime.nodes == 1:
        return [sys.executable, "-m", stage.module, str(spec)]
    if runtime.nodes == 1:
        meeting = ["--standalone"]
    else:  # every machine runs the same command on the same spec, in a folder that they share; one rank writes
        assert runtime.rendezvous is not None
        meeting = [f"--nnodes={runtime.nodes}", "--rdzv-backend=c10d", f"--rdzv-endpoint={runtime.rendezvous}"]
        meeting += [f"--rdzv-id={stage.key[:12]}"]
    ranks = ["-m", "torch.distributed.run", *meeting, f"--nproc-per-node={runtime.processes}"]
    ranks += [f"--shutdown-timeout={math.ceil(runtime.stop_seconds)}"]  # its own patience with the ranks is 30 s
    return [sys.executable, *ranks, "-m", stage.module, str(spec)]


def run_process(
    command: Sequence[str], work: Path, on_metrics: Callable[[list[MetricLine]], None], stop_seconds: float
) -> None:
    """Run `command` to its end; metrics lines that it writes into `work` are handed on as they come.

    On KeyboardInterrupt (or SIGTERM, which the command line turns into one) the process is asked to stop, gets
    `stop_seconds` for a checkpoint, and is then killed with all its children.

    Raises:
        PCDError: the stage met something the user has to mend; its own line.
        StageFailedError: it ended badly in any other way.
    """
    log = work / "log.txt"
    (work / "error.txt").unlink(missing_ok=True)  # of an earlier attempt
    # Python finds this project's packages also where it was not installed, and from any folder.
    path = os.pathsep.join([str(Path(__file__).parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {k: v for k, v in os.environ.items() if not k.startswith(_FOREIGN_TO_STAGES)}
    environment |= {"PCD_SUPERVISOR": str(os.getpid()), "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=environment,
            start_new_session=True,
        )  # fmt: skip
    metrics = _Tail(work / "metrics.jsonl")
    try:
        while process.poll() is None:
            on_metrics(metrics.new_lines())
            time.sleep(_POLL_SECONDS)
    finally:
        stop_group(process, stop_seconds)  # also behind a stage that ended: its children may not have
        on_metrics(metrics.new_lines())
    _judge(process.returncode, work, log)


def _judge(returncode: int, work: Path, log: Path) -> None:
    if returncode == 0 and (work / "result.json").exists():
        return
    told = work / "error.txt"
    if told.exists():  # also from under torchrun, which has an exit code of its own
        raise PCDError(told.read_text())
    last = "\n  ".join(log.read_text(errors="replace").splitlines()[-_LAST_LINES:])
    if returncode == EXIT_USER_ERROR and not last:
        last = "it said nothing"
    ended = f"was killed by {signal.Signals(-returncode).name}" if returncode < 0 else f"ended with code {returncode}"
    raise StageFailedError(f"the stage {ended}; the last lines of {log}:\n  {last}")


def stop_group(process: subprocess.Popen[bytes], seconds: float) -> None:
    """SIGTERM to a process that leads a group (a stage saves a checkpoint), SIGKILL to what is left of the group."""
    try:
        if process.poll() is None:
            process.terminate()
            process.wait(seconds)
    except subprocess.TimeoutExpired:
        pass
    finally:  # a second Ctrl-C in the wait above means: now
        try:
            os.killpg(process.pid, signal.SIGKILL)  # the group's id is its first process's
        except ProcessLookupError:
            pass
        process.wait()


class _Tail:
    """Whole new lines of a growing file. One that was replaced is told from its start; step numbers tell doubles."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._position, self._inode = (path.stat().st_size, path.stat().st_ino) if path.exists() else (0, 0)

    def new_lines(self) -> list[MetricLine]:
        try:
            with self.path.open("rb") as file:
                number = os.fstat(file.fileno()).st_ino
                if number != self._inode:  # a resumed stage wrote it anew, without what it has to do again
                    self._position = 0 if self._inode else self._position
                    self._inode = number
                file.seek(self._position)
                block = file.read()
        except FileNotFoundError:
            return []
        whole = block[: block.rfind(b"\n") + 1]
        self._position += len(whole)
        return [json.loads(line) for line in whole.splitlines()]
