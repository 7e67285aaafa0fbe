"""What the `pcd store` commands share: opening the store, a bar for long work, sizes and ages in words."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from pcd.errors import PCDError
from pcd.os_errors import plain_os_errors

if TYPE_CHECKING:
    from rich.console import Console

    from flows.store.store import Store

__all__ = ["console", "duration", "opened_store", "progress_bar", "size"]


@contextmanager
def opened_store(part: str | None) -> Iterator["Store"]:
    from flows.home import home
    from flows.store.remote_files import UnreachableError
    from flows.store.store import open_store
    from pcd.errors import unknown_name

    opened = open_store(part)
    if part is not None and not opened.root.exists():
        parts = sorted(path.parent.name for path in home().glob("reruns/*/store"))
        raise unknown_name("part of the store", part, parts)
    opened.note = lambda line: click.echo(line, err=True)
    try:
        with plain_os_errors(opened.root):
            yield opened
    except UnreachableError as error:
        raise PCDError(f"{error}; try again, or unset PCD_STORE to see this machine's alone") from None


@contextmanager
def progress_bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, nothing elsewhere; it is told the bytes that were done."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    screen = console(stderr=True)
    columns = (TextColumn(what), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as bars:
        bar = bars.add_task(what, total=total)
        yield lambda length: bars.advance(bar, length)


def console(*, stderr: bool = False) -> "Console":
    from rich.console import Console

    # A pipe has no width; nothing must be cut there.
    return Console(width=None if Console().is_terminal else 200, highlight=False, stderr=stderr)


def size(length: int) -> str:
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if length >= factor:
            return f"{length / factor:.1f} {unit}"
    return f"{length} B"


def duration(seconds: float) -> str:
    for unit, factor in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * factor:
            return f"{seconds / factor:.0f} {unit}"
    return f"{seconds:.0f} s"
