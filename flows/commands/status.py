"""`pcd status`, `pcd logs` and `pcd stop`."""

import contextlib
import dataclasses
import json
import time
from collections import deque
from typing import TYPE_CHECKING, Final

import click

from flows.commands import options
from flows.commands.screen import screen
from flows.words import duration

if TYPE_CHECKING:
    from rich.console import Group

    from flows.supervision.status import RunStatus, StageStatus, Status

__all__ = ["logs", "status", "stop"]

_EVERY_SECONDS: Final = 1.0


@click.command()
@options.as_json
@click.option("--watch", is_flag=True, help="Show it anew every second, until Ctrl-C.")
def status(as_json: bool, watch: bool) -> None:
    """Show what runs where: benchmarks, their stages, devices, progress, last heartbeat."""
    from flows.home import home
    from flows.supervision.status import read_status

    if as_json:
        click.echo(json.dumps(dataclasses.asdict(read_status(home())), indent=2))
        return
    from rich.live import Live

    console = screen(160)
    if not watch:
        console.print(_tables(read_status(home())))
        return
    shown = Live(_tables(read_status(home())), console=console, screen=console.is_terminal, auto_refresh=False)
    with contextlib.suppress(KeyboardInterrupt), shown:
        while True:
            time.sleep(_EVERY_SECONDS)
            shown.update(_tables(read_status(home())), refresh=True)


@click.command()
@click.argument("name", metavar="CELL_OR_STAGE")
@click.option("-n", "--lines", default=50, show_default=True, type=click.IntRange(0), help="How many, from the end.")
@click.option("-f", "--follow", is_flag=True, help="Go on until the stage has ended, or Ctrl-C.")
@options.as_json
def logs(name: str, lines: int, follow: bool, as_json: bool) -> None:
    """Print the log of CELL_OR_STAGE (pcd.fpn_1x.seed0, pretrain:pcd.seed0, data): running now, or run last."""
    from flows.home import home
    from flows.supervision.heartbeat import is_running
    from flows.supervision.status import log_of

    path = log_of(home(), name)
    with path.open(errors="replace") as file:
        last = [line.rstrip("\n") for line in deque(file, maxlen=lines)]
        if as_json:
            click.echo(json.dumps({"log": str(path), "lines": last}, indent=2))
            return
        for line in last:
            click.echo(line)
        if follow:
            with contextlib.suppress(KeyboardInterrupt):
                while is_running(path.parent):
                    click.echo(file.read(), nl=False)
                    time.sleep(_EVERY_SECONDS / 2)
                click.echo(file.read(), nl=False)


@click.command()
@click.argument("name", metavar="CELL_OR_STAGE|all")
@click.option("--whole", is_flag=True, help="Stop the whole run that the stage belongs to.")
@options.as_json
def stop(name: str, whole: bool, as_json: bool) -> None:
    """Stop a stage that runs, behind a checkpoint; its run goes on with the others. `all` stops all runs."""
    from flows.home import home
    from flows.supervision.status import running_stage, stop_run, stop_stage

    if name == "all":
        told = _stop_all()
    elif whole:
        beat = running_stage(home(), name)
        stop_run(beat.supervisor)
        _wait_for([beat.supervisor])
        told = [f"the run of {beat.stage} (pid {beat.supervisor.partition(':')[0]}) has ended"]
    else:
        told = [stop_stage(home(), name)]
    if as_json:
        click.echo(json.dumps({"stopped": told}, indent=2))
    else:
        for line in told:
            click.echo(line)


def _stop_all() -> list[str]:
    from flows.home import home
    from flows.journal import read_journals
    from flows.supervision.heartbeat import read_heartbeats
    from flows.supervision.processes import is_alive
    from flows.supervision.status import stop_run, store_roots
    from pcd.errors import PCDError

    processes = {journal.run.process for journal in read_journals(home())}
    processes |= {beat.supervisor for beat in read_heartbeats(store_roots(home()))}
    alive = sorted(process for process in processes if is_alive(process))
    if not alive:
        raise PCDError("nothing runs here")
    for process in alive:
        with contextlib.suppress(PCDError):  # it ended just now
            stop_run(process)
    _wait_for(alive)
    return [f"the run with pid {process.partition(':')[0]} has ended" for process in alive]


def _wait_for(processes: list[str]) -> None:
    from flows.supervision.processes import is_alive

    while any(is_alive(process) for process in processes):
        time.sleep(_EVERY_SECONDS / 5)


def _tables(now: "Status") -> "Group | str":
    from rich import box
    from rich.console import Group
    from rich.table import Table

    if not (now.runs or now.stages):
        return "nothing runs here"
    runs = Table(box=box.SIMPLE, title="benchmarks", title_justify="left")
    for column in ("benchmark", "stages done", "failed", "now", "pid"):
        runs.add_column(column, no_wrap=True)
    for run in now.runs:
        failed = str(run.failed) if run.failed else ""
        runs.add_row(run.name, f"{run.done} of {run.stages}", failed, _doing(run), str(run.pid))
    stages = Table(box=box.SIMPLE, title="stages", title_justify="left")
    for column in ("stage", "benchmark", "devices", "phase", "step", "rate", "left", "heartbeat", "pid"):
        stages.add_column(column, no_wrap=True, justify="right" if column in ("step", "rate", "left") else "left")
    for stage in now.stages:
        stages.add_row(*_row(stage))
    return Group(*(table for table in (runs, stages) if table.row_count))


def _doing(run: "RunStatus") -> str:
    if not run.is_alive:
        return "dead; the next run closes it"
    return f"runs {run.running} stage{'s' * (run.running > 1)}" if run.running else f"waits for {run.waits_for}"


def _row(stage: "StageStatus") -> tuple[str, ...]:
    from rich.markup import escape

    where = stage.benchmark or ""
    return (
        escape(stage.stage),
        f"{where} ({stage.part})" if stage.part else where,
        ", ".join(device[:12] for device in stage.devices),
        stage.phase,
        "" if stage.step is None else f"{stage.step}/{stage.total}",
        _rate(stage.rate),
        "" if stage.eta is None else duration(stage.eta),
        "dead; the next run closes it" if stage.heartbeat_age is None else f"{duration(stage.heartbeat_age)} ago",
        str(stage.pid),
    )


def _rate(rate: float | None) -> str:
    if rate is None:
        return ""
    return f"{rate:.1f}/s" if rate >= 1 else f"{60 * rate:.1f}/min"
