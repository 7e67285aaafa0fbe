"""`pcd store verify`, `gc` and `push`: is all whole, what may go, what has to be uploaded."""

import dataclasses
import json
import sys
from typing import TYPE_CHECKING, Any

import click

from flows.commands import options
from flows.commands.opened_store import opened_store, progress_bar
from flows.words import duration, size
from pcd.errors import PCDError

if TYPE_CHECKING:
    from flows.store.listing import Stored

__all__ = ["gc", "push", "verify"]


@click.command()
@click.argument("stages", nargs=-1, metavar="[KEY|STAGE]...")
@click.option(
    "--remote", "with_remote", is_flag=True, help="Also what the remote has; reads all of it over the network."
)
@options.part
@options.as_json
def verify(stages: tuple[str, ...], with_remote: bool, part: str | None, as_json: bool) -> None:
    """Check the SHA-256 of every file of all stages, or of some; exit code 1 if any is damaged."""
    from flows.store.listing import choose, list_store
    from flows.store.manifest import damaged_files

    with opened_store(part) as opened:
        rows = list_store(opened, with_remote=with_remote)
        rows = [choose(rows, name) for name in stages] if stages else [row for row in rows if row.manifest]
        faults: list[dict[str, Any]] = []
        total = sum(row.bytes * ((row.where != "remote") + (with_remote and row.where != "local")) for row in rows)
        with progress_bar("verifying", total) as advance:
            for row in rows:
                if row.folder is not None and row.manifest is not None:
                    faults += _fault(row, "local", damaged_files(row.folder, row.manifest, advance))
                if with_remote and row.where in ("remote", "both") and opened.exchange is not None:
                    remote = opened.exchange.remote
                    manifest = remote.manifest(row.kind, row.key)
                    if manifest is not None:
                        faults += _fault(row, "remote", remote.damaged_files(row.kind, manifest, advance))
    if as_json:
        click.echo(json.dumps({"stages": len(rows), "bytes": total, "faults": faults}, indent=2))
    else:
        for fault in faults:
            click.echo(f"FAULT {fault['stage']} {fault['key'][:12]} ({fault['where']}): {', '.join(fault['files'])}")
        click.echo(f"{len(rows)} stages, {size(total)} read, {len(faults)} damaged" + _what_next(faults))
    if faults:
        sys.exit(1)


def _fault(row: "Stored", where: str, files: list[str]) -> list[dict[str, Any]]:
    return [{"stage": row.id, "key": row.key, "where": where, "files": files}] if files else []


def _what_next(faults: list[dict[str, Any]]) -> str:
    wheres = {fault["where"] for fault in faults}
    told = "; the next run that needs them moves them aside" if "local" in wheres else ""
    return told + ("; `pcd store push --check` replaces those in the remote" if "remote" in wheres else "")


@click.command()
@click.option("--older-than", default=7.0, show_default=True, metavar="DAYS", help="What is younger stays.")
@click.option("--yes", is_flag=True, help="Delete; without it, only say what would go.")
@options.part
@options.as_json
def gc(older_than: float, yes: bool, part: str | None, as_json: bool) -> None:
    """Delete what no finished or running benchmark names; the young stays: an interrupted one names nothing.

    Without --part, the parts of reruns that are recorded nowhere go as well.
    """
    from flows.home import home
    from flows.store.gc import delete, find_garbage
    from flows.store.parts import delete_part, find_parts

    with opened_store(part) as opened:
        told, parts = find_garbage(opened, home(), older_than), find_parts(home(), older_than) if part is None else []
        if yes:
            told = [item for item in told if delete(opened, home(), item)]
            parts = [item for item in parts if delete_part(home(), item)]
    told += parts
    length = sum(item.bytes for item in told)
    if as_json:
        items = [dataclasses.asdict(item) | {"path": str(item.path)} for item in told]
        click.echo(json.dumps({"deleted": yes, "bytes": length, "items": items}, indent=2))
        return
    for item in told:
        place = item.path.relative_to(opened.root if item.path.is_relative_to(opened.root) else home())
        click.echo(f"{size(item.bytes):>10}  {duration(item.age_days * 86400):>8}  {item.what:20}  {place}")
    done = "deleted" if yes else "would be deleted" + ("; delete with --yes" if told else "")
    click.echo(f"{len(told)} items, {size(length)} {done}")


@click.command()
@click.option("--check", is_flag=True, help="Read what the remote has, and replace what is damaged there.")
@options.part
@options.as_json
def push(check: bool, part: str | None, as_json: bool) -> None:
    """Upload what the remote does not have: made up for, or computed before there was one."""
    from flows.store.listing import list_store

    with opened_store(part) as opened:
        if opened.exchange is None:
            raise PCDError("there is no remote; set PCD_STORE to its URL, such as s3://bucket/folder")
        exchange, rows = opened.exchange, list_store(opened)
        here = [row for row in rows if row.folder is not None and row.manifest is not None]
        both = [row for row in here if row.where == "both"]
        if check:
            with progress_bar("checking", sum(row.bytes for row in both)) as advance:
                damaged = [row for row in both if exchange.is_damaged(row.kind, row.key, advance)]
        else:
            damaged = []
        wanted = [row for row in here if row.where == "local"] + damaged
        length = sum(row.bytes for row in wanted)
        with progress_bar("uploading", length) as advance:
            for row in wanted:
                exchange.upload(row.kind, row.key, advance)
        for kind, key in exchange.pending():  # marks of what is there already, or gone here
            exchange.upload(kind, key)
    if as_json:
        click.echo(json.dumps({"uploaded": [row.describe() for row in wanted], "bytes": length}, indent=2))
    else:
        click.echo(f"{len(wanted)} stages, {size(length)} uploaded to {exchange.remote.name}")
