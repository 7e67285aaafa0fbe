"""`pcd plan`: what a run would do, and what it would cost."""

import json
from pathlib import Path

import click

from flows.commands import options
from flows.commands.profile_names import with_profile_names
from flows.commands.screen import screen

__all__ = ["plan"]


@click.command()
@click.argument("profile")
@options.overrides
@options.own
@options.only
@click.option("--from", "from_stage", metavar="STAGE", help="As if this stage, and all behind it, ran anew.")
@click.option("--fresh", is_flag=True, help="As if every stage ran anew.")
@click.option("--commands", is_flag=True, help="Show what starts each stage.")
@options.as_json
@with_profile_names
def plan(
    profile: str, overrides: tuple[str, ...], own: Path | None, only: tuple[str, ...], from_stage: str | None,
    fresh: bool, commands: bool, as_json: bool,
) -> None:  # fmt: skip
    """Show what `pcd run PROFILE` would do: cells and stages, why each runs, what is missing, time, memory and disk.

    Nothing is run. PROFILE is PROFILE_NAMES, or a YAML file.
    """
    from flows.commands.own_set import load_with_data
    from flows.planning.plan import make_plan
    from flows.planning.plan_report import as_json as to_json
    from flows.planning.plan_report import report_plan
    from flows.store.store import open_store

    settings = load_with_data(profile, overrides, own)
    report = report_plan(make_plan(settings), open_store(), only=only, from_stage=from_stage, fresh=fresh)
    if as_json:
        click.echo(json.dumps(to_json(report), indent=2))
        return
    from flows.commands.plan_tree import print_plan

    print_plan(report, screen(10_000), commands=commands)
