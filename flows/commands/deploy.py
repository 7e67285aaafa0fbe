"""`pcd deploy` and `pcd worker`: scheduled benchmarks and reruns on a Prefect server that stays."""

import dataclasses
import json
import os
import sys
from typing import TYPE_CHECKING, Final

import click

from flows.commands import options
from pcd.errors import PCDError

if TYPE_CHECKING:
    from prefect.client.schemas.actions import DeploymentScheduleCreate

__all__ = ["deploy", "worker"]

_POOL: Final = "pcd"


@click.command()
@click.argument("profiles", nargs=-1)
@click.option("--set", "overrides", multiple=True, metavar="SETTING=VALUE", help="Change a setting of the profiles.")
@click.option("--rerun-of", "runs", multiple=True, metavar="RUN", help="Deploy a rerun of this finished benchmark.")
@click.option("--share", metavar="KINDS", default="", help="Stages that reruns reuse: teacher,data,pretrain [none].")
@click.option("--cron", metavar="CRON", help='When, such as "0 3 * * 1": Mondays at three.')
@click.option("--interval", metavar="TIME", help="Or how often, such as 90s, 30m, 12h, 7d, 2w.")
@click.option("--rrule", metavar="RRULE", help='Or by a recurrence rule, such as "FREQ=WEEKLY;BYDAY=FR;BYHOUR=20".')
@click.option("--timezone", metavar="NAME", help="Of the schedule, such as Europe/Berlin [UTC].")
@click.option(
    "--notify", "channels", multiple=True, metavar="KIND=TARGET",
    help="Tell of failed and crashed runs: webhook=URL, slack=URL, email=FROM,TO; URL may be env:NAME, a variable.",
)  # fmt: skip
@click.option("--work-pool", default=_POOL, show_default=True, metavar="NAME", help="Made if it is missing.")
@click.option("--dry-run", is_flag=True, help="Say what would change, and change nothing.")
@options.as_json
def deploy(
    profiles: tuple[str, ...], overrides: tuple[str, ...], runs: tuple[str, ...], share: str, cron: str | None,
    interval: str | None, rrule: str | None, timezone: str | None, channels: tuple[str, ...], work_pool: str,
    dry_run: bool, as_json: bool,
) -> None:  # fmt: skip
    """Deploy benchmarks (PROFILES) and reruns to the Prefect server, to be started by its form or by a schedule.

    Deploying twice changes nothing. The server is that of PREFECT_API_URL or of `pcd ui`; `pcd worker` runs what is
    due. A scheduled run that is due while the one before it is not over is cancelled, so that none pile up.
    """
    if not (profiles or runs or channels):
        raise PCDError("nothing to deploy; name a profile (pcd deploy demo), a run (--rerun-of), or --notify")
    if sum(when is not None for when in (cron, interval, rrule)) > 1:
        raise PCDError("a deployment has one schedule: give --cron, --interval or --rrule")
    from flows.commands.rerun import shared_kinds
    from flows.profiles import load_profile

    kinds = shared_kinds(share)
    settings = [load_profile(profile, overrides) for profile in profiles]
    _use_server()
    from prefect.client.orchestration import get_client

    from flows.orchestration.deploy import deploy_all, of_benchmark, of_rerun
    from flows.orchestration.notify import bring_notification, parse_channel
    from flows.rerun import find_original

    wanted_channels = [parse_channel(channel) for channel in channels]
    schedule = _schedule(cron, interval, rrule, timezone)
    deployments = [of_benchmark(benchmark, schedule) for benchmark in settings]
    deployments += [of_rerun(find_original(run), kinds, schedule) for run in runs]
    with get_client(sync_client=True) as client:
        changes = deploy_all(client, deployments, work_pool, dry_run=dry_run)
        changes += [bring_notification(client, channel, dry_run=dry_run) for channel in wanted_channels]
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(change) for change in changes], indent=2))
        return
    for change in changes:
        what = f"would be {change.what}" if dry_run and change.what != "unchanged" else change.what
        click.echo(f"{change.kind:13} {change.name:28} {what:17} {change.details}".rstrip())
    click.echo(f"\nruns start as soon as a worker is there: pcd worker{'' if work_pool == _POOL else f' {work_pool}'}")


@click.command()
@click.argument("work_pool", default=_POOL)
def worker(work_pool: str) -> None:
    """Run what is due on this machine, until Ctrl-C: Prefect's own worker, in the environment that our flows need."""
    _use_server()
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", work_pool, "--type", "process"]
    os.execv(command[0], command)  # noqa: S606  # a list of our own; Ctrl-C and SIGTERM are the worker's


def _use_server() -> None:
    """Set PREFECT_API_URL to a server that stays. Raises PCDError, with how to start one, if none answers."""
    from flows.home import PREFECT_PORT, home, set_environment
    from flows.logins import without_login
    from flows.orchestration.health import reason_for_silence

    os.environ["PCD_HOME"] = str(home())  # of a worker's runs too, which start in a folder of their own
    set_environment()
    url = os.environ.setdefault("PREFECT_API_URL", f"http://127.0.0.1:{PREFECT_PORT}/api")
    if reason := reason_for_silence(url):
        raise PCDError(
            f"no Prefect server answers at {without_login(url)} ({reason}); start one that stays: `pcd ui`, or set "
            "PREFECT_API_URL"
        )


def _schedule(
    cron: str | None, interval: str | None, rrule: str | None, timezone: str | None
) -> "DeploymentScheduleCreate | None":
    from flows.orchestration.deploy import schedule_of

    try:
        return schedule_of(cron, interval, rrule, timezone)
    except ValueError as error:
        raise PCDError(f"the schedule is not understood: {error}") from None
