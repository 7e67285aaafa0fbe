"""What the `pcd store` commands share: opening the store, and a bar for long work."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from flows.commands.screen import screen
from pcd.errors import PCDError
from pcd.os_errors import plain_os_errors

if TYPE_CHECKING:
    from flows.store.store import Store

__all__ = ["opened_store", "progress_bar"]


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

    console = screen(stderr=True)
    columns = (TextColumn(what), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        bar = bars.add_task(what, total=total)
        yield lambda length: bars.advance(bar, length)
