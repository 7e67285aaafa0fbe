"""Brings one stage of a benchmark about: from the store if it is there, else by its process."""

import json
import shlex
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from eval.metric_lines import MetricLine
from flows.journal import Journal
from flows.orchestration.slots import prefect_slots
from flows.planning.costs import remember
from flows.planning.keys import changed_sources
from flows.planning.stages import Plan, Stage
from flows.progress import Reporter
from flows.stage_summary import stage_summary
from flows.store.store import Store
from flows.supervision.devices import Devices, lease_devices
from flows.supervision.machine_load import sampled_load
from flows.supervision.stage_command import stage_command, write_spec
from flows.supervision.supervisor import run_process
from pcd.errors import PCDError, StageFailedError, StageStoppedError

__all__ = ["NoProgressError", "Runner"]


class NoProgressError(StageFailedError):
    """Failed twice at the same place: a third attempt would as well."""


@dataclass(slots=True)
class Runner:
    """Its methods may be called from several threads, each for another stage."""

    plan: Plan
    store: Store
    shared: Mapping[str, Store]
    """Kinds of stages that another part of the store may give, for a rerun that shares them; what that part lacks is
    computed in `store`."""
    journal: Journal
    reporter: Reporter
    environment: dict[str, Any]
    anew: set[str]
    """Ids of stages that are computed also if the store has them; each leaves this set when it is done."""
    stop: threading.Event = field(default_factory=threading.Event)
    """Set: all stages save their checkpoints and end."""
    folders: dict[str, Path] = field(default_factory=dict)
    """Stage id to the folder of the finished stage."""
    begun: dict[str, Path] = field(default_factory=dict)
    """Stage id to the work folder of a stage that is being computed, or was."""
    on_begin: Callable[[], None] = lambda: None
    """Called in the stage's thread when it has begun."""
    _stops: dict[str, threading.Event] = field(default_factory=dict)
    _begun_anew: set[str] = field(default_factory=set)
    _reached: dict[str, int] = field(default_factory=dict)

    def bring_about(self, stage: Stage) -> bool:
        """Leave the stage finished in the store. Returns whether it was there already.

        Raises what flows.supervision.supervisor.run_process raises; the work folder then keeps the stage's checkpoints.
        """
        waiting = lambda: self.reporter.note(f"waiting: another run computes {stage.id}")  # noqa: E731
        with self.store.lock(stage, waiting, self.stop_of(stage)):
            stored = self._find(stage, waiting)
            if stored is None:
                self.folders[stage.id] = self._compute(stage)
                self.anew.discard(stage.id)
                self.journal.note("done", stage.id, folder=str(self.folders[stage.id]))
                return False
        self.folders[stage.id] = stored
        self.reporter.stage_is_stored(*self._place(stage), stage)
        self.journal.note("cached", stage.id, folder=str(stored))
        return True

    def _find(self, stage: Stage, waiting: Callable[[], None]) -> Path | None:
        if stage.id in self.anew:  # until it is done: a retry must not take the old result for its own
            if stage.id not in self._begun_anew:
                self._begun_anew.add(stage.id)
                self.store.discard_work(stage)
            return None
        shared = self.shared.get(stage.kind)
        if shared is not None:
            with shared.lock(stage, waiting, self.stop):
                found = self._look(shared, stage)
            if found is not None:
                return found
        return self._look(self.store, stage)

    def _look(self, store: Store, stage: Stage) -> Path | None:
        # What another stage is going to read is checked byte by byte; what is only told of, by its size.
        read_by_others = any(stage.id in other.inputs.values() for other in self.plan.stages)
        return store.obtain(stage) if read_by_others else store.find(stage) or store.obtain(stage)

    def _compute(self, stage: Stage) -> Path:
        runtime, work = self.plan.benchmark.runtime, self.store.work_folder(stage)
        self.journal.note("running", stage.id, folder=str(work))
        self.reporter.stage_starts(*self._place(stage), stage)
        began, started = time.monotonic(), time.time()
        devices: tuple[str, ...] = ()
        try:
            with lease_devices(stage, runtime, self._on_wait(stage), self.stop_of(stage)) as leased:
                _check_sources(stage)
                self.begun[stage.id] = work  # only now: what runs beside it must not take the device before it
                self.on_begin()
                devices, started = leased.names, time.time()
                command = self._run(stage, work, leased)
            seconds = time.monotonic() - began
            remember(stage, work, self.environment, devices, started)
            folder, result = self._commit(stage, command, seconds)
        except StageStoppedError as error:
            self._stop_beside(stage)
            self.reporter.stage_fails(stage, "stopped; the next run goes on from its last checkpoint")
            self.journal.note("stopped", stage.id, folder=str(work), reason=str(error))
            raise
        except Exception as error:
            self._stop_beside(stage)
            if devices and not (work / "result.json").exists():  # else it was the commit that failed
                remember(stage, work, self.environment, devices, started)
            self.reporter.stage_fails(stage, f"its log is {work / 'log.txt'}")
            with suppress(OSError):  # on a full disk the error itself says more; whoever closes the run notes it
                self.journal.note("failed", stage.id, folder=str(work), reason=f"{type(error).__name__}: {error}")
            self._refuse_to_repeat(stage, error)
            raise
        self.reporter.stage_ends(stage, seconds, stage_summary(stage, result))
        for warning in result.get("warnings", ()):
            self.reporter.note(f"warning: {warning}")
        return folder

    def _run(self, stage: Stage, work: Path, devices: Devices) -> list[str]:
        runtime = self.plan.benchmark.runtime
        inputs = {name: self.folders.get(of) or self.begun[of] for name, of in stage.inputs.items()}
        if stage.beside:
            stage = self._with_places(stage)
        command = stage_command(stage, write_spec(stage, work, inputs, runtime, devices), runtime)
        if stage.distributed and runtime.nodes > 1:
            others = runtime.nodes - 1
            self.reporter.note(f"start this on the other {others} machines as well:\n  {shlex.join(command)}")

        def on_metrics(lines: list[MetricLine]) -> None:
            for line in lines:
                self.reporter.stage_goes_on(stage, line)

        with (
            prefect_slots(devices.kind, len(devices.names), devices.of, self.stop_of(stage)),
            sampled_load(work / "system.jsonl"),
        ):
            run_process(
                command, work, on_metrics, stage=stage, stop_seconds=runtime.stop_seconds,
                stall_seconds=runtime.stall_seconds, stop=self.stop_of(stage), environment=devices.environment,
            )  # fmt: skip
        return command

    def _commit(self, stage: Stage, command: list[str], seconds: float) -> tuple[Path, dict[str, Any]]:
        record = {
            "benchmark": self.plan.benchmark.name,
            "command": command,
            "seconds": round(seconds, 1),
            "environment": self.environment,
        }
        folder = self.store.commit(stage, record)
        return folder, json.loads((folder / "result.json").read_text())

    def _with_places(self, stage: Stage) -> Stage:
        """Where the stage beside which it runs lies now, and where when it is done."""
        other = next(other for other in self.plan.stages if other.id == stage.beside)
        final = self.folders.get(other.id) or self.store.folder(other.kind, other.key)
        places = {"live": str(self.begun.get(other.id, final)), "final": str(final)}
        return replace(stage, runtime={**(stage.runtime or {}), **places})

    def _on_wait(self, stage: Stage) -> Any:
        return lambda taken_by: self.reporter.note(f"waiting: {stage.id} needs a device that {taken_by} holds")

    def _refuse_to_repeat(self, stage: Stage, error: Exception) -> None:
        """Between two failures there must be a newer checkpoint, or the next attempt would fail as well."""
        if not isinstance(error, StageFailedError):
            return
        reached = self.store.state(stage).step or 0
        if stage.id in self._reached and reached <= self._reached[stage.id]:
            raise NoProgressError(f"{error}\nno progress since the failure before this one: not tried again") from error
        self._reached[stage.id] = reached

    def _place(self, stage: Stage) -> tuple[int, int]:
        ids = [other.id for other in self.plan.stages]
        return ids.index(stage.id) + 1 if stage.id in ids else len(ids), len(ids)

    def find_if_free(self, stage: Stage) -> Path | None:
        """Where the stage lies; what another run computes just now is not waited for."""
        for store in filter(None, (self.shared.get(stage.kind), self.store)):
            with store.unlocked(stage.kind, stage.key) as is_free:
                found = store.obtain(stage) if is_free else store.find(stage)
            if found is not None:
                return found
        return None

    def stop_of(self, stage: Stage) -> threading.Event:
        """Set: this stage ends. One that runs beside another has an event of its own."""
        return self._stops.setdefault(stage.id, threading.Event()) if stage.beside else self.stop

    def stop_all(self) -> None:
        """All stages save their checkpoints and end."""
        self.stop.set()
        for stop in self._stops.values():
            stop.set()

    def _stop_beside(self, stage: Stage) -> None:
        """The next attempt at `stage` needs its devices again; what runs beside it begins again with it."""
        self.begun.pop(stage.id, None)
        for other in self.plan.stages:
            if other.beside == stage.id:
                self.stop_of(other).set()


def _check_sources(stage: Stage) -> None:
    """Raises PCDError if its result would be of another source than its key says."""
    changed = changed_sources(stage.parts["sources"])
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise PCDError(f"{changed[0]}{more} changed since this run was planned; run it again, by the new source")
