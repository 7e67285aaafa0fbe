"""Runs whose process died are closed: children ended, MLflow and Prefect told what happened. At the start of each run,
and by the warden as soon as a run's process is gone."""

import logging
import os
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from flows.journal import Journal, read_journals
from flows.supervision.processes import descendants_of, end_processes, is_alive, orphan_servers

__all__ = ["close", "reconcile"]

_log = logging.getLogger(__name__)
_STOP_SECONDS = 60.0


def reconcile(home: Path, only: Path | None = None) -> list[str]:
    """Close all runs of this home whose process is dead, or the one that is written down in `only`.

    Returns a line for each that was closed.
    """
    told, with_others = [], set()
    for journal in read_journals(home):
        if is_alive(journal.run.process) or only not in (None, journal.path):
            with_others.add(journal.run.process)
            continue
        try:
            with FileLock(journal.path.with_suffix(".lock"), timeout=0):
                told += _close_dead(journal.path)
        except Timeout:  # another run, or the warden, is at it
            with_others.add(journal.run.process)
            continue
        journal.path.with_suffix(".lock").unlink(missing_ok=True)
    end_processes(orphan_servers(home, with_others), _STOP_SECONDS)
    return told


def _close_dead(path: Path) -> list[str]:
    if not path.exists():
        return []
    journal = Journal.read(path)
    run = journal.run
    end_processes(descendants_of(run.process), _STOP_SECONDS)
    died = journal.outcome is None
    if died:
        reason = f"the process of this run ({run.process.partition(':')[0]}) died"
        for stage, event in journal.stages.items():
            if event.status == "running":
                journal.note("failed", stage, folder=event.folder, reason=reason)
        journal.note("crashed", reason=reason)
    if not close(journal):
        return [f"run {run.name} of an earlier process is over; MLflow or Prefect could not be told of it yet"]
    return [f"run {run.name} had died and is closed"] if died else []


def close(journal: Journal, *, is_published: bool = False) -> bool:
    """Tell MLflow and Prefect all that they do not know yet; then the journal is needed no more. Raises nothing."""
    if not is_published and not _publish(journal):
        return False
    server = journal.run.server
    # The database of a temporary server that is gone is that of today's temporary server.
    api = os.environ.get("PREFECT_API_URL") if server and not is_alive(server) else journal.run.prefect_api
    if api is None:
        return False
    from flows.orchestration.settle import settle

    is_settled = settle(journal, api)
    if server and is_alive(server) and not is_alive(journal.run.process):
        end_processes([psutil.Process(int(server.partition(":")[0]))], _STOP_SECONDS)
    if is_settled:
        journal.forget()
    return is_settled


def _publish(journal: Journal) -> bool:
    from flows.tracking.publisher import publish_all
    from flows.tracking.tracker import Tracker

    try:
        publish_all(Tracker(journal.run), journal)
    except Exception:  # whatever MLflow has against it, it stays on the disk for another time
        _log.warning("MLflow was not told of run %s", journal.run.id, exc_info=True)
        return False
    return True
