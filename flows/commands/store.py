"""`pcd store`: what is stored, and why a stage has to run."""

import dataclasses
import json
import time
from typing import TYPE_CHECKING, Any

import click

from flows.commands import options
from flows.commands.opened_store import opened_store
from flows.commands.screen import screen
from flows.commands.upkeep import gc, push, verify
from flows.words import duration, size
from pcd.errors import PCDError

if TYPE_CHECKING:
    from flows.planning.stages import Plan
    from flows.store.listing import Stored

__all__ = ["store"]


@click.group()
def store() -> None:
    """The stage store: $PCD_HOME/store, and the remote that $PCD_STORE names, if it is set."""


@store.command("ls")
@options.part
@options.as_json
def list_stages(part: str | None, as_json: bool) -> None:
    """Finished stages and interrupted work, the newest last."""
    from rich import box
    from rich.table import Table

    from flows.store.listing import age, list_store

    with opened_store(part) as opened:
        rows = list_store(opened)
    if as_json:
        click.echo(json.dumps([row.describe() for row in rows], indent=2))
        return
    table = Table(box=box.SIMPLE, title=f"Store {opened.root}", title_justify="left")
    for column in ("kind", "stage", "key", "benchmark"):
        table.add_column(column, overflow="fold" if column == "stage" else "ellipsis", no_wrap=column != "stage")
    for column in ("size", "age"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("where")
    for row in rows:
        where = (
            "interrupted" + (f" at step {row.step}" if row.step is not None else "")
            if row.where == "work"
            else row.where
        )
        cells = (row.kind, row.id, row.key[:12], row.benchmark or "", size(row.bytes), duration(age(row)), where)
        table.add_row(*cells)
    screen().print(table)
    finished = [row for row in rows if row.where != "work"]
    here = sum(row.bytes for row in rows if row.where != "remote")
    click.echo(f"{len(finished)} stages, {len(rows) - len(finished)} interrupted; {size(here)} on this machine")


@store.command()
@click.argument("stage", metavar="KEY|STAGE")
@options.part
@options.as_json
def show(stage: str, part: str | None, as_json: bool) -> None:
    """The manifest of a stage: by its key, the beginning of it, or its id (the newest of that id)."""
    from flows.store.listing import choose, list_store

    with opened_store(part) as opened:
        row = choose(list_store(opened), stage)
    if as_json:
        click.echo(json.dumps(row.describe() | {"manifest": row.manifest}, indent=2))
        return
    for name, value in _facts(row).items():
        click.echo(f"{name:12} {value}")
    if row.manifest is None:
        return
    click.echo("settings")
    click.echo(_indented(row.manifest["settings"]))
    click.echo("files")
    for name, file in row.manifest["files"].items():
        click.echo(f"  {file['sha256'][:16]}  {size(file['bytes']):>10}  {name}")


@store.command()
@click.argument("names", nargs=-1, metavar="STAGE_OR_PROFILE...")
@options.overrides
@options.part
@options.as_json
def why(names: tuple[str, ...], overrides: tuple[str, ...], part: str | None, as_json: bool) -> None:
    """Why stages would run again: what changed since they were stored.

    Of a profile all stages that would run; with stages or cells only those. Without a profile, the settings of the
    benchmark that was finished last are taken.
    """
    from flows.store.why import explain, in_words

    plan, wanted = _plan_of(names, overrides)
    with opened_store(part) as opened:
        reasons = [
            (stage, explain(stage, opened, plan.benchmark.name))
            for stage in plan.stages
            if not wanted or stage.id in wanted
        ]
    if as_json:
        told = [
            {"stage": stage.id, "key": stage.key, "differences": [dataclasses.asdict(d) for d in differences]}
            for stage, differences in reasons
        ]
        click.echo(json.dumps(told, indent=2))
        return
    for stage, differences in reasons:
        if differences or wanted:
            click.echo(stage.id if differences else f"{stage.id}: in the store")
        for difference in differences:
            click.echo(f"  {in_words(difference)}")
    if not wanted and not any(differences for _, differences in reasons):
        click.echo(f"all {len(reasons)} stages are in the store")


def _plan_of(names: tuple[str, ...], overrides: tuple[str, ...]) -> tuple["Plan", set[str]]:
    """The plan of the one profile among the names, and the ids of the stages that the others name."""
    from flows.planning.plan import make_plan
    from flows.profiles import PROFILES, load_profile, validate
    from flows.run_record import latest_record
    from pcd.errors import unknown_name

    profiles = [name for name in names if name in PROFILES or name.endswith((".yaml", ".yml"))]
    if len(profiles) > 1:
        raise PCDError(f"one profile at a time, not {' and '.join(profiles)}")
    record = None if profiles else latest_record()
    if record is not None and record.settings and not overrides:
        plan = make_plan(validate(record.settings, f"the record of {record.name}"))
    elif profiles:
        plan = make_plan(load_profile(profiles[0], overrides))
    else:
        raise PCDError(f"name a profile as well: {', '.join(PROFILES)}, or a YAML file")
    ids = {name: stage.id for stage in plan.stages for name in (stage.id, stage.id.partition(":")[2]) if name}
    ids |= {stage.id: stage.id for stage in plan.stages}
    for name in names:
        if name not in ids and name not in profiles:
            raise unknown_name("stage or profile", name, [*ids, *PROFILES] if len(ids) < 50 else PROFILES)
    return plan, {ids[name] for name in names if name not in profiles}


def _facts(row: "Stored") -> dict[str, Any]:
    import shlex

    from flows.store.manifest import command_again

    manifest = row.manifest or {}
    command = command_again(manifest, row.folder) if row.folder else manifest.get("command", ())
    environment = manifest.get("environment") or {}
    facts = {
        "stage": row.id,
        "key": row.key,
        "where": row.where,
        "folder": row.folder,
        "benchmark": row.benchmark,
        "finished": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(row.finished)),
        "took": duration(manifest["seconds"]) if "seconds" in manifest else None,
        "size": size(row.bytes),
        "step": row.step,
        "command": shlex.join(command),
        "git commit": environment.get("git_commit"),
        "machine": ", ".join(filter(None, [environment.get("processor"), *environment.get("gpus", [])])),
        **{f"input {name}": key for name, key in manifest.get("parts", {}).get("inputs", {}).items()},
    }
    return {name: value for name, value in facts.items() if value not in (None, "")}


def _indented(data: Any) -> str:
    return "\n".join(f"  {line}" for line in json.dumps(data, indent=2).splitlines())


for command in (verify, gc, push):
    store.add_command(command)
