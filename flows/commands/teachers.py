"""`pcd teachers`: list, show, fetch and verify the registry's teachers, and train the demo's."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flows.commands import options
from flows.commands.screen import screen
from pcd.errors import PCDError, unknown_name

if TYPE_CHECKING:
    from pcd.teachers.entry import TeacherEntry

__all__ = ["teachers"]


@click.group()
def teachers() -> None:
    """The registry of self-supervised teachers."""


@teachers.command("list")
@options.as_json
def list_teachers(as_json: bool) -> None:
    """Name, licence and published accuracy of every teacher."""
    from rich import box
    from rich.table import Table

    from flows.home import home
    from pcd.teachers.fetch import kept_file
    from pcd.teachers.registry import TEACHERS

    if as_json:
        click.echo(json.dumps([entry.describe() for entry in TEACHERS.values()], indent=2))
        return
    console = screen()
    table = Table(box=box.SIMPLE, title="Teachers", title_justify="left")
    has_titles = console.width >= 150  # names tell most of it; licences must not be cut
    table.add_column("name", no_wrap=True)
    if has_titles:
        table.add_column("teacher", max_width=44)
    table.add_column("published accuracy", max_width=28)
    table.add_column("licence of the weights", overflow="fold")
    table.add_column("MB", justify="right", no_wrap=True)
    table.add_column("hash", no_wrap=True)
    table.add_column("facts unverified", justify="right")
    table.add_column("here", no_wrap=True)
    for entry in TEACHERS.values():
        table.add_row(
            entry.name,
            *([entry.title] if has_titles else []),
            entry.accuracy.partition(" (")[0],
            _terms(entry),
            f"{entry.megabytes:.0f}" if entry.megabytes else "?",
            _hash_in_short(entry),
            str(len(entry.unverified) or ""),
            "yes" if kept_file(entry, home()).exists() else "",
        )
    console.print(table)
    console.print("`pcd teachers show NAME` tells the rest, with every fact that nobody has verified yet.")


@teachers.command()
@click.argument("name")
@options.as_json
def show(name: str, as_json: bool) -> None:
    """All that is known of teacher NAME."""
    entry = _entry(name)
    if as_json:
        click.echo(json.dumps(entry.describe(), indent=2))
        return
    from flows.home import home
    from pcd.teachers.fetch import kept_file
    from pcd.teachers.pins import read_pins

    kept, pinned = kept_file(entry, home()), read_pins(home()).get(name)
    facts = {
        "teacher": entry.title,
        "licence": _terms(entry),
        "address": entry.url or f"none: {entry.obtain}",
        "size": f"about {entry.megabytes:g} MB" if entry.megabytes else "unknown",
        "published hash": str(entry.published_hash or "none: pinned at the first fetch"),
        "reported hash": f"{entry.reported_hash} (a third party's, not enforced)" if entry.reported_hash else "none",
        "pinned hash": f"sha256 {pinned['sha256']} ({pinned['date']}, {pinned['source']})" if pinned else "none",
        "here": str(kept) if kept.exists() else f"no: pcd teachers fetch {name}",
        "trunk": str(entry.trunk),
        "head": f"{_arrows(entry.head.widths)}, from {entry.head_prefix or 'the top'}"
        if entry.head_prefix is not None
        else "none",
        "student's MLPs": f"c -> {_arrows(entry.projector_widths(0)[1:])}, {_arrows(entry.predictor_widths())}",
        "accuracy": entry.accuracy,
        "source": entry.source,
    }
    for fact, value in facts.items():
        click.echo(f"{fact:16} {value}")
    for unverified in entry.unverified:
        click.echo(f"{'unverified':16} {unverified}")


@teachers.command()
@click.argument("name")
@click.option("--file", type=click.Path(path_type=Path), help="Take this file of the publisher's.")
@click.option(
    "--mirror", envvar="PCD_TEACHER_MIRROR", type=click.Path(path_type=Path),
    help="Look in this folder before the address [$PCD_TEACHER_MIRROR].",
)  # fmt: skip
@click.option(
    "--accept-change", is_flag=True, help="Fetch anew, and pin what comes in place of the file pinned before."
)
def fetch(name: str, file: Path | None, mirror: Path | None, accept_change: bool) -> None:
    """Bring the file of teacher NAME here and check it.

    An interrupted download goes on where it broke off. Where no whole hash is published, the file's own is pinned in
    $PCD_HOME/teachers.lock.json at the first fetch and enforced from then on, whatever the source.
    """
    entry = _entry(name)
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    from flows.home import home
    from pcd.teachers.fetch import fetch_teacher
    from pcd.teachers.tensors import read_published

    if entry.noncommercial:
        click.echo(f"licence: the weights of {name} are {entry.licence}, not for commercial use", err=True)
    console = screen()
    columns = (TextColumn(name), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        bar = bars.add_task(name, total=None)
        fetched = fetch_teacher(
            entry,
            home(),
            file=file,
            mirror=mirror,
            accept_change=accept_change,
            progress=lambda done, total: bars.update(bar, completed=done, total=total or None),
            check=lambda path, sha256: read_published(entry, path),
        )
    click.echo(f"file    {fetched.path}\nfrom    {fetched.source}\nsha256  {fetched.sha256}")
    click.echo("hash    " + ("published" if fetched.was_published else "pinned in teachers.lock.json"))
    if fetched.as_reported is not None:
        verdict = "equals" if fetched.as_reported else "differs from"
        click.echo(f"        {verdict} the {entry.reported_hash} that a third party reports")


@teachers.command()
@click.argument("name", required=False)
def verify(name: str | None) -> None:
    """Hash the file of teacher NAME, or of all that are here, against what was published or pinned."""
    from flows.home import home
    from pcd.teachers.fetch import kept_file
    from pcd.teachers.pins import identify
    from pcd.teachers.registry import TEACHERS

    here = [e for e in ([_entry(name)] if name else TEACHERS.values()) if kept_file(e, home()).exists()]
    if name and not here:
        raise PCDError(f"teacher {name} is not here; run `pcd teachers fetch {name}`")
    good = True
    for entry in here:
        try:
            known = identify(entry, kept_file(entry, home()), home())
        except PCDError as error:
            good = False
            click.echo(f"FAULT {error}")
        else:
            basis = {"published": "as published", "pinned": "as pinned", "unknown": "not pinned yet"}[known.rests_on]
            click.echo(f"ok    {entry.name:20} {known.sha256}  {basis}")
    if not good:
        sys.exit(1)


@teachers.command("train-demo")
@click.option(
    "--output", type=click.Path(path_type=Path, exists=True, file_okay=False), help="Folder [the registry's own]."
)
@click.option("--epochs", type=click.FloatRange(min=0, min_open=True), help="Passes over the pool [60].")
def train_demo(output: Path | None, epochs: float | None) -> None:
    """Train the teacher of `demo` and `mini` anew (some 50 minutes on one core)."""
    from flows.demo_teacher import train

    train(output, {} if epochs is None else {"epochs": epochs})


def _entry(name: str) -> "TeacherEntry":
    from pcd.teachers.registry import TEACHERS

    if name not in TEACHERS:
        raise unknown_name("teacher", name, TEACHERS)
    return TEACHERS[name]


def _terms(entry: "TeacherEntry") -> str:
    return entry.licence + (" (not for commercial use)" if entry.noncommercial else "")


def _arrows(widths: tuple[int, ...]) -> str:
    return " -> ".join(map(str, widths))


def _hash_in_short(entry: "TeacherEntry") -> str:
    if entry.published_hash is None:
        return "none"
    return "published" if entry.published_hash.is_whole else "first digits"
