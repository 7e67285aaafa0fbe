"""Runs a stage as processes of its own: starts them, follows their progress, stops them, says how they ended."""

import json
import math
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from eval.metric_lines import MetricLine
from flows.home import home
from flows.planning.stages import Stage
from flows.supervision.devices import DEVICES
from flows.supervision.heartbeat import Heartbeat, Pulse
from flows.supervision.metrics_tail import MetricsTail
from flows.supervision.processes import (
    HOME_MARK,
    STAGE_MARK,
    SUPERVISOR_MARK,
    descendants_of,
    end_processes,
    identity,
    orphans,
)
from flows.supervision.stall import StallWatch
from pcd.checkpoint_step import checkpoint_step
from pcd.errors import PCDError, StageFailedError, StageStoppedError
from pcd.stage import EXIT_USER_ERROR, remove_needless, write_json
from pcd.supervised import STOP_SECONDS

__all__ = ["ENDED", "STOP_REQUEST", "run_process", "stop_group"]

STOP_REQUEST: Final = "stop-requested"
"""A file of this name in a stage's work folder asks its supervisor to stop it."""
ENDED: Final = "ended.json"
"""How the last attempt in a work folder ended, where it left no result."""

_POLL_SECONDS: Final = 0.2
_LAST_LINES: Final = 12
_FOREIGN_TO_STAGES: Final = ("MLFLOW_", "PREFECT_")
_ROUNDS: Final = 5
"""How often what is left of a stage is looked for: a process may start another one while it is being killed."""

_Why = Literal["ended", "stopped", "stopped by name", "stalled"]


def run_process(
    command: Sequence[str],
    work: Path,
    on_metrics: Callable[[list[MetricLine]], None],
    *,
    stop_seconds: float,
    stall_seconds: float = math.inf,
    stage: Stage | None = None,
    stop: threading.Event | None = None,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Run `command` to its end, in a session of its own; from any thread, several at once.

    Metrics lines that it writes into `work` are handed on as they come; of phases without steps, lines with `phase`.
    When this returns or raises, none of the stage's processes is left. A stage that has to stop gets `stop_seconds` for
    a checkpoint, and is then killed: when `stop` is set, when a file `stop-requested` appears in `work`, on
    KeyboardInterrupt in the main thread, and after `stall_seconds` without a new metrics line, activity or checkpoint
    and without a longer log.

    Args:
        stage: whose id and key mark the processes and the heartbeat; without it, what `work` is named for.
        environment: laid over ours.

    Raises:
        PCDError: the stage met something the user has to mend; its own line.
        StageStoppedError: it was asked to stop, and has no result.
        StageFailedError: it ended badly in any other way, or showed no progress.
    """
    stop, environment = stop or threading.Event(), environment or {}
    key = stage.key if stage else work.name.removeprefix(".work-")
    devices = tuple(filter(None, environment.get(DEVICES, "").split(",")))
    beat = Heartbeat(
        stage=stage.id if stage else _told_id(work), key=key, supervisor=identity(), process=identity(), devices=devices
    )
    for name in ("error.txt", STOP_REQUEST, ENDED):  # of an earlier attempt
        (work / name).unlink(missing_ok=True)
    pulse = Pulse(work, beat)
    try:
        _wait_for_predecessors(key, stop_seconds, stop, pulse)
        if (work / "result.json").exists():  # finished while its supervisor was being killed
            remove_needless(work)
            return
        if stop.is_set():
            raise StageStoppedError("stopped before it began")
        with (work / "log.txt").open("ab") as output:
            process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                env=_environment(environment, key, stop_seconds), start_new_session=True,
            )  # fmt: skip
        attempt = _Attempt(process, key, work, pulse, on_metrics)
        attempt.follow(stop_seconds, stall_seconds, stop)
        _judge(attempt, stop_seconds)
    finally:
        pulse.end()  # last: whoever waits for it then finds how the stage ended


def _told_id(work: Path) -> str:
    try:
        return str(json.loads((work / "spec.json").read_text())["stage"])
    except (OSError, ValueError, KeyError, TypeError):  # a command that is no stage
        return work.name


def _environment(given: Mapping[str, str], key: str, stop_seconds: float) -> dict[str, str]:
    # Python finds this project's packages also where it was not installed, and from any folder.
    path = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
    kept = {k: v for k, v in os.environ.items() if not k.startswith(_FOREIGN_TO_STAGES)}
    marks = {SUPERVISOR_MARK: identity(), STAGE_MARK: key, HOME_MARK: str(home())}
    return {**kept, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **given, **marks, STOP_SECONDS: f"{stop_seconds:g}"}


def _wait_for_predecessors(key: str, seconds: float, stop: threading.Event, pulse: Pulse) -> None:
    """Processes of this stage whose supervisor was killed save their checkpoint now: two must not write at once."""
    left = orphans(home(), key)
    if left:
        pulse.phase("waiting for an earlier attempt to end")
        with (pulse.work / "log.txt").open("a") as file:
            file.write(f"waiting: {len(left)} processes of an attempt whose pcd was killed are still saving\n")
    end = time.monotonic() + seconds
    while left and time.monotonic() < end and not stop.wait(_POLL_SECONDS):
        pulse.beat()
        left = orphans(home(), key)
    end_processes(left, 0)


@dataclass(slots=True)
class _Attempt:
    """A stage's processes, from their start until none is left."""

    process: subprocess.Popen[bytes]
    key: str
    work: Path
    pulse: Pulse
    on_metrics: Callable[[list[MetricLine]], None]
    metrics: MetricsTail = field(init=False)
    watch: StallWatch = field(init=False)
    why: _Why = "ended"
    was_killed: bool = False

    def __post_init__(self) -> None:
        self.metrics, self.watch = MetricsTail(self.work / "metrics.jsonl"), StallWatch(self.work)

    def follow(self, stop_seconds: float, stall_seconds: float, stop: threading.Event) -> None:
        self.pulse.starts(self.process.pid)
        try:
            while self.process.poll() is None and self.why == "ended":
                self._look()
                self.why = self._reason_to_stop(stop, stall_seconds)
                stop.wait(_POLL_SECONDS)
            if self.why != "ended":
                self._ask_to_stop(stop_seconds)
        except BaseException as error:  # Ctrl-C, or a fault of a caller's function; a second Ctrl-C means: now
            self.why = "stopped"
            if isinstance(error, Exception):
                self.on_metrics = _ignore
            self._ask_to_stop(stop_seconds)
            raise
        finally:
            # Behind a stage that ended by itself, an agent's ranks may still save theirs; there are none as a rule.
            self._end_all(stop_seconds if self.why == "ended" else 0)
            self.on_metrics(self.metrics.new_lines())

    def _look(self) -> None:
        lines = self.metrics.new_lines()
        self.pulse.steps(lines)
        activity = self.pulse.new_activity()
        self.pulse.beat()
        self.watch.look()
        self.on_metrics(lines + ([activity] if activity else []))

    def _reason_to_stop(self, stop: threading.Event, stall_seconds: float) -> _Why:
        if stop.is_set():
            return "stopped"
        if (self.work / STOP_REQUEST).exists():
            return "stopped by name"
        return "stalled" if self.watch.quiet > stall_seconds else "ended"

    def _ask_to_stop(self, seconds: float) -> None:
        """Of several ranks only the agent is asked, which asks them."""
        if self.process.poll() is None:
            self.pulse.phase("stopping")
            self.process.terminate()
        end = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < end:
            self._look()
            time.sleep(_POLL_SECONDS / 2)
        self.was_killed = self.process.poll() is None

    def _end_all(self, seconds: float) -> None:
        for _ in range(_ROUNDS):
            left = descendants_of(identity(), self.key)
            if self.process.poll() is not None and not left:
                break
            end_processes(left, seconds)
            _kill_group(self.process)
            seconds = 0
        self.process.wait()


def _ignore(lines: list[MetricLine]) -> None:
    pass


def _judge(attempt: _Attempt, stop_seconds: float) -> None:
    work, log, code = attempt.work, attempt.work / "log.txt", attempt.process.returncode
    # It is whole or not there: whatever befell the stage behind it, its work was done.
    if (work / "result.json").exists():
        remove_needless(work)
        (work / STOP_REQUEST).unlink(missing_ok=True)
        return
    told = work / "error.txt"
    if told.exists():  # also from under torchrun, which has an exit code of its own
        raise PCDError(told.read_text())
    last = "\n  ".join(log.read_text(errors="replace").splitlines()[-_LAST_LINES:])
    if code == EXIT_USER_ERROR and not last:
        last = "it said nothing"
    lines, ended = f"the last lines of {log}:\n  {last}", _how_it_ended(attempt, stop_seconds)
    write_json(work / ENDED, {"how": ended, "time": time.time()})
    if attempt.why in ("stopped", "stopped by name"):
        raise StageStoppedError(f"the stage {ended}", alone=attempt.why == "stopped by name")
    raise StageFailedError(f"the stage {ended}; {lines}")


def _how_it_ended(attempt: _Attempt, stop_seconds: float) -> str:
    step, code = checkpoint_step(attempt.work), attempt.process.returncode
    kept = "without a checkpoint" if step is None else f"its checkpoint is of step {step}"
    killed = f"did not stop within {stop_seconds:g} s and was killed; {kept}"
    if attempt.why == "stalled":
        silence = f"showed no sign of progress for {attempt.watch.quiet:.0f} s"
        return f"{silence}, {killed}" if attempt.was_killed else f"{silence} and was stopped; {kept}"
    if attempt.why != "ended":
        return killed if attempt.was_killed else f"was stopped; {kept}"
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"


def stop_group(process: subprocess.Popen[bytes], seconds: float) -> None:
    """SIGTERM to a process that leads a group (a stage saves a checkpoint), SIGKILL to what is left of the group."""
    try:
        if process.poll() is None:
            process.terminate()
            process.wait(seconds)
    except subprocess.TimeoutExpired:
        pass
    finally:  # a second Ctrl-C in the wait above means: now
        _kill_group(process)
        process.wait()


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)  # the group's id is its first process's
    except ProcessLookupError:
        pass
