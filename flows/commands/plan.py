"""`pcd plan`: what a run would do, and what it would cost."""

import json
from pathlib import Path

import click

from flows.commands.profile_names import with_profile_names

__all__ = ["plan"]


@click.command()
@click.argument("profile")
@click.option("--set", "overrides", multiple=True, metavar="SETTING=VALUE", help="Change a setting of the profile.")
@click.option("--data", "own", type=click.Path(path_type=Path), metavar="FOLDER", help="As of `pcd run`.")
@click.option("--only", multiple=True, metavar="PATTERN", help="Only these cells, such as 'pcd.*.seed0'.")
@click.option("--from", "from_stage", metavar="STAGE", help="As if this stage, and all behind it, ran anew.")
@click.option("--fresh", is_flag=True, help="As if every stage ran anew.")
@click.option("--commands", is_flag=True, help="Show what starts each stage.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
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
    from rich.console import Console

    from flows.commands.plan_tree import print_plan

    # A pipe has no width; nothing must be cut there.
    console = Console(width=None if Console().is_terminal else 10_000, highlight=False)
    print_plan(report, console, commands=commands)
