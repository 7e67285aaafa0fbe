"""Which stage of a plan begins when: as soon as its inputs are there, some at a time, on past those that fail."""

from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Final

from prefect.exceptions import TerminationSignal
from prefect.futures import PrefectFuture

from flows.planning.stages import Plan, Stage
from flows.runner import Runner
from flows.supervision.processes import descendants_of, end_processes, identity
from pcd.errors import StageFailedError

__all__ = ["STOPS", "bring_all_about"]

STOPS: Final = (KeyboardInterrupt, SystemExit, TerminationSignal)
"""What ends a flow because somebody wants it to."""

Running = dict[PrefectFuture[Any], Stage]


def bring_all_about(plan: Plan, runner: Runner, submit: Callable[[Stage], PrefectFuture[Any]]) -> dict[str, Exception]:
    """Every stage as soon as its inputs are there, `runtime.parallel` at a time; goes on where one fails.

    A stage that runs beside another one (Stage.beside) begins when that one has begun, besides the `parallel` others,
    and again with each further attempt at it; if it fails, that is said, and nothing else depends on it.

    Returns the failures by stage id; stages behind a failed one are skipped and are no failures of their own.
    """
    waiting, running = list(plan.stages), Running()
    news: SimpleQueue[PrefectFuture[Any] | None] = SimpleQueue()
    runner.on_begin = lambda: news.put(None)  # a stage that runs beside it may begin now
    failures: dict[str, Exception] = {}
    lost: set[str] = set()
    try:
        while waiting or running:
            for stage in tuple(waiting):
                if lost & set(stage.inputs.values()):
                    waiting.remove(stage)
                    lost.add(stage.id)
                    runner.journal.note("skipped", stage.id, reason="a stage that it needs failed")
                elif _has_room(stage, running, plan) and _is_ready(stage, runner):
                    waiting.remove(stage)
                    begun = submit(stage)
                    running[begun] = stage
                    begun.add_done_callback(news.put)
            if not running or (future := news.get()) is None:
                continue
            stage = running.pop(future)
            if stage.id in runner.folders:
                continue
            if stage.beside in {other.id for other in running.values()} and runner.stop_of(stage).is_set():
                runner.stop_of(stage).clear()  # an attempt failed beside which it ran; it begins again with the next
                waiting.append(stage)
                continue
            lost.add(stage.id)
            error = _error_of(future)
            if stage.beside:
                runner.reporter.note(f"{stage.id} failed, and nothing waits for it: {str(error).partition(chr(10))[0]}")
            else:
                failures[stage.id] = error
                for other in running.values():
                    if other.beside == stage.id:
                        runner.stop_of(other).set()
    except BaseException:
        runner.stop_all()
        _wait_for(running)
        raise
    return failures


def _has_room(stage: Stage, running: Running, plan: Plan) -> bool:
    return bool(stage.beside) or sum(not s.beside for s in running.values()) < plan.benchmark.runtime.parallel


def _is_ready(stage: Stage, runner: Runner) -> bool:
    there = runner.folders.keys() | ({stage.beside} & runner.begun.keys())
    return set(stage.inputs.values()) <= there


def _wait_for(running: Running) -> None:
    """Their stages write checkpoints and end; a second Ctrl-C means: now."""
    try:
        for future in running:
            future.wait()
    except STOPS:
        end_processes(descendants_of(identity()), 0)
        raise


def _error_of(future: PrefectFuture[Any]) -> Exception:
    error = future.result(raise_on_failure=False)
    return error if isinstance(error, Exception) else StageFailedError(f"the task ended as {error!r}")
