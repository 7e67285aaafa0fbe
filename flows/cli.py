"""The `pcd` command. Each command imports what it needs when it runs, so that `--help` answers at once."""

import contextlib
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any, Literal

import click

from flows.commands import options
from flows.commands.compare import compare
from flows.commands.data import data
from flows.commands.deploy import deploy, worker
from flows.commands.plan import plan
from flows.commands.profile_names import with_profile_names
from flows.commands.report import report, show
from flows.commands.rerun import rerun
from flows.commands.status import logs, status, stop
from flows.commands.store import store
from flows.commands.teachers import teachers
from flows.commands.trace import trace
from pcd.errors import PCDError, StageFailedError

__all__ = ["main"]


class _Commands(click.Group):
    """Turns what the user can mend into one line on standard error, and a misspelt command into the nearest one."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except PCDError as error:
            click.echo(f"error: {error}", err=True)
            ctx.exit(2)
        except StageFailedError as error:
            click.echo(f"error: {error}\nrun the same command again to go on from the last checkpoint", err=True)
            ctx.exit(1)
        except KeyboardInterrupt:
            click.echo("stopped; the same command goes on where this one ended", err=True)
            ctx.exit(130)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        command = super().get_command(ctx, cmd_name)
        if command is None:
            from pcd.errors import unknown_name

            raise click.UsageError(str(unknown_name("command", cmd_name, self.list_commands(ctx))))
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="pcd-benchmark")
def main() -> None:
    """Pixel-Wise Contrastive Distillation, from a teacher to a COCO AP table.

    Results, checkpoints and databases lie in $PCD_HOME (./runs).
    """


@main.command()
@click.argument("profile")
@options.overrides
@options.own
@options.only
@click.option("--from", "from_stage", metavar="STAGE", help="Compute this stage anew, and all behind it.")
@click.option("--fresh", is_flag=True, help="Compute every stage anew.")
@options.as_json
@with_profile_names
def run(
    profile: str, overrides: tuple[str, ...], own: Path | None, only: tuple[str, ...], from_stage: str | None,
    fresh: bool, as_json: bool,
) -> None:  # fmt: skip
    """Run a benchmark: PROFILE is PROFILE_NAMES, or a YAML file.

    Stages that are in the store are not run again; an interrupted one goes on from its last checkpoint. Where a cell
    fails the others go on; the table names it as a hole, and the exit code is 1.
    """
    from flows.commands.own_set import load_with_data
    from flows.run import run_benchmark
    from flows.run_record import NOT_ASKED_FOR

    settings = load_with_data(profile, overrides, own)
    with contextlib.redirect_stdout(sys.stderr if as_json else sys.stdout):  # progress must not stand in the JSON
        record = run_benchmark(settings, only=only, from_stage=from_stage, fresh=fresh)
    show(record, as_json)
    if any(reason != NOT_ASKED_FOR for reason in record.holes.values()):
        click.echo("error: the table has holes; the same command runs only what is missing", err=True)
        sys.exit(1)


@main.command()
@click.argument("benchmark", required=False)
@click.option("--to", "destination", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder.")
@click.option("--cell", help="Which, if the benchmark has several, such as pcd.seed0.")
def export(benchmark: str | None, destination: Path, cell: str | None) -> None:
    """Copy a pre-trained backbone and its model card out of the store, of BENCHMARK or of the one finished last."""
    from flows.commands.export import export_pretrained
    from flows.run_record import finished_record

    for path in export_pretrained(finished_record(benchmark), cell, destination):
        click.echo(path)


@main.command()
@click.argument("capture", type=click.Path(path_type=Path))
@click.option(
    "--precision",
    type=click.Choice(["as captured", "fp32", "bf16", "fp16"]),
    default="as captured",
    help="Number format to compute in.",
)
@options.as_json
def replay(capture: Path, precision: Literal["as captured", "fp32", "bf16", "fp16"], as_json: bool) -> None:
    """Compute a training step again that was not finite, and show where it goes wrong."""
    from flows.commands.replay import show_replay

    show_replay(capture, precision, as_json)


@main.command()
@click.option("--markdown", is_flag=True, help="As the page in docs/.")
@options.as_json
def settings(markdown: bool, as_json: bool) -> None:
    """List every setting: default, meaning, and on whose word the default rests."""
    from flows.commands.settings_table import as_markdown, list_settings, print_settings

    if markdown:
        click.echo(as_markdown(), nl=False)
    elif as_json:
        rows = {title: [dataclasses.asdict(row) for row in group] for title, group in list_settings().items()}
        click.echo(json.dumps(rows, indent=2))
    else:
        print_settings()


@main.command()
@click.option("--mlflow-port", default=None, type=int, help="Port of MLflow's pages [5000].")
@click.option("--prefect-port", default=None, type=int, help="Port of Prefect's pages [4200].")
def ui(mlflow_port: int | None, prefect_port: int | None) -> None:
    """Serve the MLflow and Prefect pages on this machine's loopback address until Ctrl-C."""
    from flows.pages import serve_pages

    serve_pages(mlflow_port, prefect_port)


@main.command()
def doctor() -> None:
    """Check this installation: versions, Detectron2's operators, space."""
    from flows.doctor import examine

    findings = examine()
    for finding in findings:
        click.echo(f"{'ok   ' if finding.good else 'FAULT'} {finding.what}")
    if not all(finding.good for finding in findings):
        sys.exit(1)


main.add_command(report)
main.add_command(compare)
main.add_command(data)
main.add_command(store)
main.add_command(plan)
main.add_command(logs)
main.add_command(status)
main.add_command(stop)
main.add_command(teachers)
main.add_command(trace)
main.add_command(rerun)
main.add_command(deploy)
main.add_command(worker)
