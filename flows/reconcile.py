"""Runs whose process died are closed: children ended, MLflow and Prefect told what happened. At the start of each run,
and by the warden as soon as a run's process is gone."""

import logging
import os
from collections.abc import Callable
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from flows.journal import Journal, Whom, read_journals
from flows.supervision.processes import descendants_of, end_processes, identity, is_alive, orphan_servers

__all__ = ["close", "end_servers", "reconcile"]

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


def end_servers(home: Path, record: Path) -> list[str]:
    """End the temporary Prefect servers of a process that was killed before it had written down any run.

    Those of runs that are written down are left to whoever closes these, and needs their servers for it.
    """
    servers = orphan_servers(home, {journal.run.process for journal in read_journals(home)})
    end_processes(servers, _STOP_SECONDS)
    return [f"the Prefect server (pid {server.pid}) of a run that never began is ended" for server in servers]


def _close_dead(path: Path) -> list[str]:
    if not path.exists():
        return []
    journal = Journal.read(path)
    run = journal.run
    end_processes(descendants_of(run.process), _STOP_SECONDS)
    died = journal.outcome is None
    if not close(journal):
        return [f"run {run.name} of an earlier process is over; MLflow or Prefect could not be told of it yet"]
    return [f"run {run.name} had died and is closed"] if died else []


def close(journal: Journal) -> bool:
    """Tell MLflow and Prefect all that they do not know yet; then the journal is needed no more. Raises nothing.

    Of a run of this process only Prefect is told. Its publisher has asked MLflow long enough, and nobody should wait
    any longer: the warden asks once more when this process is gone, and then the next run.
    """
    tell: dict[Whom, Callable[[Journal], bool]] = {"mlflow": _publish, "prefect": _settle}
    if journal.run.process == identity():
        del tell["mlflow"]
    try:
        _note_the_end(journal)
        for whom, say in tell.items():
            if not journal.is_told(whom) and say(journal):
                journal.mark_told(whom)
        if not (journal.is_told("mlflow") and journal.is_told("prefect")):
            return False
        journal.forget()
    except OSError:  # a full disk: what it cannot keep now it says later
        _log.warning("run %s cannot be closed", journal.run.id, exc_info=True)
        return False
    return True


def _note_the_end(journal: Journal) -> None:
    """What nobody could write down any more, since its process was killed or its disk was full."""
    process = journal.run.process
    died = f"the process of this run ({process.partition(':')[0]}) died"
    reason = "its end could not be written down" if is_alive(process) or journal.outcome else died
    for stage, event in journal.stages.items():
        if event.status == "running":
            journal.note("failed", stage, folder=event.folder, reason=reason)
    if journal.outcome is None:
        journal.note("crashed", reason=reason)


def _settle(journal: Journal) -> bool:
    server = journal.run.server
    # The database of a temporary server that is gone is that of today's temporary server.
    api = os.environ.get("PREFECT_API_URL") if server and not is_alive(server) else journal.run.prefect_api
    if api is None:
        return False
    from flows.orchestration.settle import settle

    is_settled = settle(journal, api)
    if server and is_alive(server) and not is_alive(journal.run.process):
        end_processes([psutil.Process(int(server.partition(":")[0]))], _STOP_SECONDS)
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
