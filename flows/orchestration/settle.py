"""Prefect's states of a run that has ended, set to what the journal says, where the flow itself could not."""

import logging
from typing import Any, Final
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import State
from prefect.exceptions import ObjectNotFound, PrefectException
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Cancelled, Completed, Crashed, Failed

from flows.journal import Event, Journal
from flows.logins import without_login

__all__ = ["settle"]

_log = logging.getLogger(__name__)
_PAGE: Final = 200


def settle(journal: Journal, api: str) -> bool:
    """Leave no state behind that says "Running". Returns whether the server at `api` took it all."""
    try:
        with temporary_settings({PREFECT_API_URL: api}), get_client(sync_client=True) as client:
            _settle_tasks(client, journal)
            _settle_flow(client, journal)
    except ObjectNotFound:  # another server's, or deleted: there is nothing to settle
        return True
    except (httpx.HTTPError, PrefectException):
        _log.warning("Prefect at %s does not take the end of run %s", without_login(api), journal.run.id, exc_info=True)
        return False
    return True


def _settle_flow(client: SyncPrefectClient, journal: Journal) -> None:
    run = client.read_flow_run(UUID(journal.run.id))
    if run.state is None or not run.state.is_final():
        client.set_flow_run_state(run.id, _flow_state(journal.outcome), force=True)


def _settle_tasks(client: SyncPrefectClient, journal: Journal) -> None:
    stages = journal.stages
    known = FlowRunFilter(id=FlowRunFilterId(any_=[UUID(journal.run.id)]))
    offset = 0
    while tasks := client.read_task_runs(flow_run_filter=known, limit=_PAGE, offset=offset):
        for task in tasks:
            if task.state is None or not task.state.is_final():
                client.set_task_run_state(task.id, _task_state(stages.get(task.name)), force=True)
        offset += _PAGE


def _flow_state(outcome: Event | None) -> State[Any]:
    match outcome.status if outcome else "crashed":
        case "finished":
            return Completed()
        case "failed":
            return Failed(message=outcome.reason if outcome else None)
        case "stopped":
            return Cancelled(message="stopped by hand")
        case _:
            return Crashed(message=outcome.reason if outcome else "the process of this run died")


def _task_state(event: Event | None) -> State[Any]:
    match event.status if event else None:
        case "done":
            return Completed()
        case "cached":
            return Completed(name="Cached")
        case "failed" | "stopped":
            return Failed(message=event.reason if event else None)
        case _:
            return Crashed(message="its run ended before it did")
