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
from typing import Final, Literal

import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate
from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError
from prefect.concurrency.sync import concurrency
from prefect.exceptions import PrefectException

__all__ = ["free_slots", "limit_name", "prefect_slots"]

_Kind = Literal["gpu", "cpu"]

_log = logging.getLogger(__name__)
_LEASE_SECONDS: Final = 60.0
_ASK_SECONDS: Final = 5.0
_MOST: Final = 200  # limits that the server gives at once


def limit_name(kind: _Kind) -> str:
    """The same for all runs of this machine, whose own name is nobody's business."""
    return f"pcd-{kind}-{hashlib.sha256(platform.node().encode()).hexdigest()[:8]}"


@contextmanager
def prefect_slots(kind: _Kind, taken: int, of: int, stop: threading.Event) -> Iterator[None]:
    """Take `taken` of the machine's `of` slots; if no server answers, the file locks alone guard the devices."""
    name = limit_name(kind)
    slots = ExitStack()
    try:
        _ensure_limit(name, of)
        while not stop.is_set():
            try:
                slots.enter_context(
                    concurrency(
                        name, taken, timeout_seconds=_ASK_SECONDS, lease_duration=_LEASE_SECONDS, strict=True,
                        raise_on_lease_renewal_failure=False,
                    )
                )  # fmt: skip
                break
            except TimeoutError:
                _log.info("waiting for %d slots of Prefect's limit %s", taken, name)
    except (httpx.HTTPError, PrefectException, ConcurrencySlotAcquisitionError) as error:  # the last is neither
        _log.warning("Prefect gave no slots (%s); the device locks alone guard the devices", error)
    try:
        yield
    finally:
        try:
            slots.close()
        except (httpx.HTTPError, PrefectException) as error:  # their lease ends by itself
            _log.warning("Prefect did not take slots back (%s)", error)


def _ensure_limit(name: str, of: int) -> None:
    """Never lowered: another run may see more of this machine's devices, and holds slots of theirs."""
    with get_client(sync_client=True) as client:
        there = [limit.limit for limit in client.read_global_concurrency_limits(limit=_MOST) if limit.name == name]
        if not there or there[0] < of:
            client.upsert_global_concurrency_limit_by_name(name, of)


def free_slots() -> None:
    """Give back what dead runs held; only to be called when no device of this machine is in use."""
    ours = {limit_name("gpu"), limit_name("cpu")}
    with get_client(sync_client=True) as client:
        for limit in client.read_global_concurrency_limits(limit=_MOST):
            if limit.name in ours and limit.active_slots:
                client.update_global_concurrency_limit(limit.name, GlobalConcurrencyLimitUpdate(active_slots=0))
