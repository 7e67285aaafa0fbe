"""Keeps MLflow in step with a run's journal, from a thread of its own: nothing that computes ever waits for MLflow.

What MLflow does not take stays on the disk, where the journal and the stages' folders are, and is said again: every
second, then ever more seldom up to a minute, and at last by whoever closes the run (flows.reconcile).
"""

import logging
import threading
import time
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Final

from mlflow.exceptions import MlflowException

from flows.journal import Event, Journal
from flows.tracking.client import is_doubtful, is_refusal
from flows.tracking.student_model import write_student_model
from flows.tracking.tracker import Tracker

__all__ = ["Publisher", "publish_all"]

_log = logging.getLogger(__name__)

_EVERY_SECONDS: Final = 1.0
_MOST_SECONDS: Final = 60.0
_PATIENCE_SECONDS: Final = 15.0


class Publisher:
    """Says in MLflow what the journal says, until it is left; then says the rest, as long as MLflow takes it."""

    def __init__(self, tracker: Tracker, journal: Journal, patience: float = _PATIENCE_SECONDS) -> None:
        """`patience`: seconds that MLflow is waited for when all else is done and it takes nothing."""
        self._journal = journal
        self._telling = _Telling(tracker, journal)
        self._patience = patience
        self._over, self._given_up = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, name="publisher", daemon=True)

    def __enter__(self) -> "Publisher":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        began = time.monotonic()
        self._over.set()
        while self._thread.is_alive() and (
            self._telling.is_at_own_work or time.monotonic() < max(began, self._telling.took) + self._patience
        ):
            self._thread.join(0.1)
        self._given_up.set()
        if self.is_through:
            with suppress(OSError):  # whoever closes the run says it all once more, which changes nothing
                self._journal.mark_told("mlflow")

    @property
    def is_through(self) -> bool:
        """Whether MLflow knows all that happened."""
        return self._telling.is_through

    def _work(self) -> None:
        wait = 0.0
        while not self._given_up.is_set():
            is_over = self._over.wait(wait)
            try:
                self._telling.say_what_is_new()
            except Exception:  # whatever it is, the run does not end of it
                wait = min(max(2 * wait, _EVERY_SECONDS), _MOST_SECONDS)
                _log.warning("MLflow did not take what happened; again in %.0f s", wait, exc_info=True)
                self._given_up.wait(_EVERY_SECONDS if is_over else 0)
                continue
            if is_over:
                return
            wait = _EVERY_SECONDS


def publish_all(tracker: Tracker, journal: Journal) -> None:
    """The same in one go. Raises what MLflow raises, or a stage's folder."""
    _Telling(tracker, journal).say_what_is_new()


class _Telling:
    """What of a journal was said already."""

    def __init__(self, tracker: Tracker, journal: Journal) -> None:
        self._tracker = tracker
        self._journal = journal
        self._said: dict[str | None, Event] = {}
        self._opened: dict[str, str] = {}
        self._began = False
        self.took = 0.0
        """When MLflow last took something, by time.monotonic()."""
        self.is_at_own_work = False
        """It registers students, which may take longer than MLflow is waited for."""

    @property
    def is_through(self) -> bool:
        outcome, stages = self._journal.outcome, self._journal.stages
        is_said = all(self._said.get(stage) == event for stage, event in stages.items())
        return self._began and is_said and outcome is not None and self._said.get(None) == outcome

    def say_what_is_new(self) -> None:
        """Raises at once if MLflow is not there; what else another time may mend, when all the rest is said."""
        outcome = self._journal.outcome  # read first: no stage changes behind it
        put_off: list[Exception] = []
        if not self._began:
            self._began = self._is_settled(None, None, put_off)
        for stage, event in self._journal.stages.items():
            if (self._said.get(stage) != event or event.status == "running") and self._is_settled(
                stage, event, put_off
            ):
                self._said[stage] = event
        if outcome is not None and self._said.get(None) != outcome and self._is_settled(None, outcome, put_off):
            self._said[None] = outcome
        if put_off:
            raise put_off[0]

    def _is_settled(self, stage: str | None, event: Event | None, put_off: list[Exception]) -> bool:
        """Whether it was said, or never can be; one stage's trouble is not the others'."""
        is_new = event is None or self._said.get(stage) != event  # what runs is said over and over
        try:
            self._say(stage, event)
        except Exception as error:
            if is_refusal(error) or _is_spoilt(error, event):
                if is_new:
                    _log.exception("MLflow cannot be told of %s", stage or "the run")
                self._end(stage, event)
            elif is_doubtful(error) or isinstance(error, OSError):
                put_off.append(error)
                return False
            else:
                raise
        if is_new:
            self.took = time.monotonic()
        return True

    def _say(self, stage: str | None, event: Event | None) -> None:
        if event is None:
            self._tracker.start_benchmark()
        elif stage is None:
            if event.folder is not None:
                self._tracker.log_table(Path(event.folder))
            self._tracker.log_report()
            self._tracker.end_benchmark(event.status, event.reason)
            if event.folder is not None:
                self._register_students(Path(event.folder))
        else:
            self._say_stage(stage, event)

    def _register_students(self, table: Path) -> None:
        """Once, whatever comes of it: the run is over without it. Its next flow tries what is missing."""
        stages = {s: event for s, event in self._journal.stages.items() if s and event.status in ("cached", "done")}
        folders = {stage: Path(event.folder) for stage, event in stages.items() if event.folder}
        self.is_at_own_work = True
        try:
            for student in self._tracker.new_students(table, folders):
                with TemporaryDirectory() as folder:
                    try:
                        write_student_model(student.student, student.pretrain, Path(folder) / "model")
                        self._tracker.register(student, Path(folder) / "model")
                    except Exception:
                        _log.exception("%s is not in MLflow's model registry", student.name)
        except Exception:
            _log.exception("MLflow's model registry did not answer")
        finally:
            self.is_at_own_work = False

    def _say_stage(self, stage: str, event: Event) -> None:
        tracker, folder = self._tracker, Path(event.folder or ".")
        if event.status == "skipped" or (event.status == "cached" and tracker.is_told(stage)):
            return
        if stage not in self._opened:
            self._opened[stage] = tracker.open_stage(stage, cached=event.status == "cached")
        elif event.status == "running" and self._said.get(stage) != event:  # tried again
            tracker.open_stage(stage, cached=False)
        run_id = self._opened[stage]
        if event.status == "running":
            tracker.log_folder(run_id, folder)
            return
        if event.status in ("cached", "done"):
            tracker.log_stage_result(run_id, stage, folder)
        else:
            tracker.log_failure(run_id, folder, event.reason)
        tracker.end_stage(stage, event.status)

    def _end(self, stage: str | None, event: Event | None) -> None:
        """Nothing that is over stays "running" in MLflow because a part of it was refused."""
        if event is None or event.status in ("running", "skipped"):
            return
        with suppress(MlflowException):
            if stage is None:
                self._tracker.end_benchmark(event.status, event.reason)
            else:
                self._tracker.end_stage(stage, event.status)


def _is_spoilt(error: Exception, event: Event | None) -> bool:
    """Whether the folder that the event names is gone by now, or holds what nobody can read."""
    if isinstance(error, ValueError | KeyError | TypeError):
        return True
    return isinstance(error, OSError) and event is not None and not Path(event.folder or ".").exists()
