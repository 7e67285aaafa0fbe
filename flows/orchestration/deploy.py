"""Prefect deployments of our flows: benchmarks from their profiles, reruns of finished ones, with schedules.

Everything is brought about by name, and only if it is missing or differs: deploying twice changes nothing, and what
somebody paused in Prefect's pages stays paused.
"""

import datetime
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate, WorkPoolCreate
from prefect.client.schemas.objects import ConcurrencyLimitStrategy, ConcurrencyOptions
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import ObjectNotFound
from prefect.flows import Flow
from prefect.schedules import Schedule
from prefect.utilities.callables import parameter_schema
from pydantic import ValidationError

from flows.benchmark import benchmark
from flows.home import QUIET, home
from flows.rerun import rerun
from flows.run_record import RunRecord
from flows.settings import Benchmark

__all__ = ["TAG", "Change", "Deployment", "deploy_all", "of_benchmark", "of_rerun", "parse_interval", "schedule_of"]

TAG: Final = "pcd"
"""Of every deployment of ours and so of its runs: the automations look for it."""

_HANDED_ON: Final = ("PCD_HOME", *QUIET)
"""What a run needs of our environment wherever its worker was started. Addresses are not among them: an address may
hold a password, and Prefect shows these; a worker has its own."""

_ANCHOR: Final = datetime.datetime(2025, 1, 6, tzinfo=datetime.UTC)  # a Monday: weekly intervals begin on one
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


@dataclass(frozen=True, slots=True)
class Deployment:
    """One that is wanted."""

    flow: Flow[..., Any]
    name: str
    parameters: dict[str, Any]
    description: str
    schedule: DeploymentScheduleCreate | None = None
    may_queue: bool = False
    """A run that is due while another one is pending or runs waits behind it, instead of being cancelled."""

    @property
    def full_name(self) -> str:
        return f"{self.flow.name}/{self.name}"


@dataclass(frozen=True, slots=True)
class Change:
    """What deploying did, or would do."""

    kind: Literal["work pool", "deployment", "notification"]
    name: str
    what: Literal["created", "updated", "unchanged"]
    details: str = ""


def of_benchmark(settings: Benchmark, schedule: DeploymentScheduleCreate | None) -> Deployment:
    # With its defaults, so that the form shows every value.
    parameters = {"settings": settings.model_dump(mode="json")}
    told = f"Benchmark `{settings.name}`: runs what the store does not have, and ends with the AP table."
    return Deployment(benchmark, settings.name, parameters, told, schedule, may_queue=schedule is None)


def of_rerun(record: RunRecord, share: Sequence[str], schedule: DeploymentScheduleCreate | None) -> Deployment:
    """Of this very run: a later one of the same name does not become the measure."""
    parameters = {"run": record.key[:12], "share": list(share), "part": None}
    told = f"Runs `{record.name}` ({record.key[:12]}) again and judges each cell; fails if one is not reproduced."
    return Deployment(rerun, record.name, parameters, told, schedule)


def schedule_of(
    cron: str | None, interval: str | None, rrule: str | None, timezone: str | None
) -> DeploymentScheduleCreate | None:
    """At most one of the first three is given. Raises ValueError, in one line, on what Prefect does not understand."""
    if cron is None and interval is None and rrule is None:
        return None
    period = parse_interval(interval) if interval is not None else None
    try:
        # A fixed anchor: deploying again does not shift the times.
        schedule = Schedule(cron=cron, interval=period, rrule=rrule, timezone=timezone, anchor_date=_ANCHOR)
        return DeploymentScheduleCreate.from_schedule(schedule)
    except ValidationError as error:
        raise ValueError(error.errors()[0]["msg"].removeprefix("Value error, ")) from None


def parse_interval(text: str) -> datetime.timedelta:
    """From "90s", "30m", "12h", "7d" or "2w". Raises ValueError."""
    number, unit = text[:-1], text[-1:]
    if unit not in _UNITS or not number.isdecimal() or int(number) == 0:
        raise ValueError(f'an interval is a number with one of {", ".join(_UNITS)}, such as 12h; got "{text}"')
    return datetime.timedelta(seconds=int(number) * _UNITS[unit])


def deploy_all(
    client: SyncPrefectClient, deployments: Sequence[Deployment], work_pool: str, *, dry_run: bool
) -> list[Change]:
    """Make the work pool if it is missing, and each deployment as it is wanted."""
    return [_bring_pool(client, work_pool, dry_run), *(_bring(client, d, work_pool, dry_run) for d in deployments)]


def _bring_pool(client: SyncPrefectClient, name: str, dry_run: bool) -> Change:
    try:
        pool = client.read_work_pool(name)
    except ObjectNotFound:
        if not dry_run:
            client.create_work_pool(WorkPoolCreate(name=name, type="process"))
        return Change("work pool", name, "created", "process")
    return Change("work pool", name, "unchanged", pool.type)


def _bring(client: SyncPrefectClient, wanted: Deployment, work_pool: str, dry_run: bool) -> Change:
    payload = _payload(wanted, work_pool)
    try:
        found = client.read_deployment_by_name(wanted.full_name)
    except ObjectNotFound:
        found = None
    details = _told(wanted.schedule)
    if found is not None and _is_as(found, payload):
        return Change("deployment", wanted.full_name, "unchanged", details)
    if not dry_run:
        flow_id = client.create_flow_from_name(wanted.flow.name)
        client.create_deployment(flow_id=flow_id, name=wanted.name, work_pool_name=work_pool, **payload)
    return Change("deployment", wanted.full_name, "created" if found is None else "updated", details)


def _payload(wanted: Deployment, work_pool: str) -> dict[str, Any]:
    schedules = [wanted.schedule] if wanted.schedule else []
    strategy = ConcurrencyLimitStrategy.ENQUEUE if wanted.may_queue else ConcurrencyLimitStrategy.CANCEL_NEW
    return {
        "entrypoint": f"{wanted.flow.fn.__module__}.{wanted.flow.fn.__name__}",  # an import, from wherever we live
        "parameters": wanted.parameters,
        "parameter_openapi_schema": parameter_schema(wanted.flow).model_dump(mode="json", exclude_unset=True),
        "enforce_parameter_schema": True,
        "description": wanted.description,
        "tags": [TAG],
        "schedules": schedules,
        # Never none: Prefect 3.8 cannot end a run any more whose deployment lost its limit meanwhile.
        "concurrency_limit": 1,
        "concurrency_options": ConcurrencyOptions(collision_strategy=strategy),
        "job_variables": {"env": _environment()},
    }


def _environment() -> dict[str, str]:
    return {name: os.environ[name] for name in _HANDED_ON if name in os.environ} | {"PCD_HOME": str(home())}


def _is_as(found: DeploymentResponse, payload: dict[str, Any]) -> bool:
    """Whether the deployment has all of this; whether its schedules are paused is the user's affair."""
    limit = found.global_concurrency_limit
    options = found.concurrency_options
    there = {
        "entrypoint": found.entrypoint,
        "parameters": found.parameters,
        "parameter_openapi_schema": found.parameter_openapi_schema,
        "enforce_parameter_schema": found.enforce_parameter_schema,
        "description": found.description,
        "tags": found.tags,
        "schedules": [schedule.schedule for schedule in found.schedules],
        "concurrency_limit": limit.limit if limit else None,
        "concurrency_options": options.collision_strategy if options else None,
        "job_variables": found.job_variables,
    }
    wanted = payload | {
        "schedules": [schedule.schedule for schedule in payload["schedules"]],
        "concurrency_options": payload["concurrency_options"].collision_strategy,
    }
    return there == wanted


def _told(wanted: DeploymentScheduleCreate | None) -> str:
    if wanted is None:
        return "no schedule"
    schedule = wanted.schedule
    what = {"cron": "cron {}", "rrule": "{}", "interval": "every {}"}
    text = next(form.format(getattr(schedule, name)) for name, form in what.items() if hasattr(schedule, name))
    timezone = getattr(schedule, "timezone", None)
    return f"{text}, {timezone}" if timezone else text
