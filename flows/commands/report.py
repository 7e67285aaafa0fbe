"""`pcd report --html` and `--open`: the report as a file, and in the browser."""

import webbrowser
from pathlib import Path

import click

from flows.report import write_benchmark_report
from flows.run_record import RunRecord
from pcd.errors import PCDError

__all__ = ["write_and_open"]


def write_and_open(record: RunRecord, path: Path | None, is_opened: bool) -> None:
    """Write the report, say where it lies, and open it if that is asked for and there is a browser."""
    try:
        written = write_benchmark_report(record, path)
    except OSError as error:
        raise PCDError(f"cannot write the report ({error}); name another file: pcd report --html FILE") from None
    click.echo(f"report: {written}")
    if is_opened and not webbrowser.open(written.absolute().as_uri()):
        click.echo("no browser is to be found here; open that file in one", err=True)
