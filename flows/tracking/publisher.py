"""Keeps MLflow in step with a run's journal, from a thread of its own: nothing that computes ever waits for MLflow.

What MLflow does not take stays on the disk, where the journal and the stages' folders are, and is said again: every
second, then ever more seldom up to a minute, and at last by whoever closes the run (flows.reconcile).
"""

import logging
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Final

from flows.journal import Event, Journal
from flows.tracking.tracker import Tracker, is_refusal

__all__ = ["Publisher", "publish_all"]

_log = logging.getLogger(__name__)

_EVERY_SECONDS: Final = 1.0
_MOST_SECONDS: Final = 60.0


class Publisher:
    """Says in MLflow what the journal says, until it is left; then says the rest, if MLflow takes it in time."""

    def __init__(self, tracker: Tracker, journal: Journal, patience: float = 60.0) -> None:
        """`patience`: seconds to wait for MLflow when all else is done."""
        self._telling = _Telling(tracker, journal)
        self._patience = patience
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, name="publisher", daemon=True)

    def __enter__(self) -> "Publisher":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join(self._patience)

    @property
    def is_through(self) -> bool:
        """Whether MLflow knows all that happened."""
        return self._telling.is_through

    def _work(self) -> None:
        wait = 0.0
        while True:
            is_over = self._over.wait(wait)
            try:
                self._telling.say_what_is_new()
            except Exception:  # whatever it is, the run does not end of it
                wait = min(max(2 * wait, _EVERY_SECONDS), _MOST_SECONDS)
                _log.warning("MLflow did not take what happened; again in %.0f s", wait, exc_info=True)
                time.sleep(_EVERY_SECONDS if is_over else 0)
                continue
            if is_over:
                return
            wait = _EVERY_SECONDS


def publish_all(tracker: Tracker, journal: Journal) -> None:
    """The same in one go. Raises what MLflow raises."""
    _Telling(tracker, journal).say_what_is_new()


class _Telling:
    """What of a journal was said already."""

    def __init__(self, tracker: Tracker, journal: Journal) -> None:
        self._tracker = tracker
        self._journal = journal
        self._said: dict[str | None, Event] = {}
        self._opened: dict[str, str] = {}
        self.began = False

    @property
    def is_through(self) -> bool:
        outcome = self._journal.outcome
        return outcome is not None and self._said.get(None) == outcome

    def say_what_is_new(self) -> None:
        if not self.began:
            self._tracker.start_benchmark()
            self.began = True
        outcome = self._journal.outcome  # read first: no stage changes behind it
        for stage, event in self._journal.stages.items():
            if self._said.get(stage) != event or event.status == "running":
                self._unless_refused(stage, event)
        if outcome is not None and not self.is_through:
            self._unless_refused(None, outcome)

    def _unless_refused(self, stage: str | None, event: Event) -> None:
        """What MLflow refuses once it would refuse again: it is logged, and the rest is said."""
        try:
            if stage is None:
                self._say_outcome(event)
            else:
                self._say(stage, event)
        except Exception as error:
            if not is_refusal(error):
                raise
            _log.exception("MLflow refuses what is said of %s", stage or "the run")
        self._said[stage] = event

    def _say(self, stage: str, event: Event) -> None:
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
        tracker.end_stage(run_id, event.status)

    def _say_outcome(self, event: Event) -> None:
        if event.folder is not None:
            self._tracker.log_table(Path(event.folder))
        self._tracker.end_benchmark(event.status, event.reason)
