"""The flow run that we are in: its id, its page, and what is shown there."""

import logging
from collections.abc import Callable

import httpx
from prefect.context import FlowRunContext
from prefect.exceptions import PrefectException

from flows.orchestration.prefect_server import pages_address

__all__ = ["flow_run_id", "page_tags", "tell_prefect"]

_log = logging.getLogger(__name__)


def flow_run_id() -> str:
    context = FlowRunContext.get()
    assert context is not None  # we are inside a flow
    assert context.flow_run is not None
    return str(context.flow_run.id)


def page_tags() -> dict[str, str]:
    """Tags by which a run in MLflow leads to the flow run's page."""
    run = flow_run_id()
    return {"prefect.flow_run_id": run, "prefect.flow_run_url": f"{pages_address()}/runs/flow-run/{run}"}


def tell_prefect(tell: Callable[[], object]) -> None:
    """What Prefect's pages miss is no reason to lose a run."""
    try:
        tell()
    except (httpx.HTTPError, PrefectException):
        _log.warning("Prefect did not take it", exc_info=True)
