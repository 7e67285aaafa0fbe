"""Prefect's view of who uses the devices: a global concurrency limit for each machine.

The file locks of flows.supervision.devices are the truth. The limit shows in Prefect's pages what is taken, and holds
back flows of other machines' workers that share this one's name by mistake; it is made if it is missing and taken
strictly, and a lost lease never ends a job.
"""

import hashlib
import logging
import platform
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate
from prefect.concurrency.sync import concurrency
from prefect.exceptions import PrefectException

__all__ = ["free_slots", "limit_name", "prefect_slots"]

_log = logging.getLogger(__name__)
_LEASE_SECONDS: Final = 60.0
_ASK_SECONDS: Final = 5.0


def limit_name() -> str:
    """The same for all runs of this machine; its name is nobody's business."""
    return f"pcd-devices-{hashlib.sha256(platform.node().encode()).hexdigest()[:8]}"


@contextmanager
def prefect_slots(taken: int, of: int, stop: threading.Event) -> Iterator[None]:
    """Take `taken` of `of` slots; without a server that answers, the file locks alone guard the devices."""
    with ExitStack() as stack:
        try:
            with get_client(sync_client=True) as client:
                client.upsert_global_concurrency_limit_by_name(limit_name(), of)
            while not stop.is_set():
                try:
                    slots = concurrency(
                        limit_name(), taken, timeout_seconds=_ASK_SECONDS, lease_duration=_LEASE_SECONDS, strict=True,
                        raise_on_lease_renewal_failure=False,
                    )  # fmt: skip
                    stack.enter_context(slots)
                    break
                except TimeoutError:
                    _log.info("waiting for %d slots of Prefect's limit %s", taken, limit_name())
        except (httpx.HTTPError, PrefectException) as error:
            _log.warning("Prefect gave no slots (%s); the device locks alone guard the devices", error)
        yield


def free_slots() -> None:
    """Give back what dead runs held; only to be called where no run of this machine lives."""
    with get_client(sync_client=True) as client:
        limits = [limit for limit in client.read_global_concurrency_limits() if limit.name == limit_name()]
        if limits and limits[0].active_slots:
            client.update_global_concurrency_limit(limit_name(), GlobalConcurrencyLimitUpdate(active_slots=0))
