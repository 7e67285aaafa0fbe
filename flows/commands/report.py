"""`pcd report`: the AP table of a finished benchmark, on the terminal, in a format to paste, or as a whole report."""

import dataclasses
import json
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from eval.format_names import FORMATS
from flows.json_object import json_object
from pcd.errors import PCDError

if TYPE_CHECKING:
    from flows.run_record import RunRecord

__all__ = ["report", "show"]

_FORMATS: Final = (*FORMATS, "html")


@click.command()
@click.argument("benchmark", required=False)
@click.option("--format", "format_name", type=click.Choice(_FORMATS), help="Instead of a table for the terminal.")
@click.option("--to", "destination", type=click.Path(path_type=Path, dir_okay=False), help="Write to this file.")
@click.option("--open", "is_opened", is_flag=True, help="Write the whole report as HTML, and open it in the browser.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for machines: the run and its table.")
def report(
    benchmark: str | None, format_name: str | None, destination: Path | None, is_opened: bool, as_json: bool
) -> None:
    """Print the AP table of BENCHMARK (a name or a key), or of the one finished last.

    csv is the long frame of all figures, one row for each cell and metric; html is the whole report in one file, with
    figures, settings and commands; the other formats show the table.
    """
    from flows.run_record import finished_record

    record = finished_record(benchmark)
    if is_opened:
        _open(_write_page(record, destination))
    elif format_name is None:
        if destination is not None:
            raise click.UsageError("--to needs --format")
        show(record, as_json)
    elif format_name == "html" and destination is not None:
        _write_page(record, destination)
    else:
        text = _text(record, format_name)
        if destination is None:
            click.echo(text, nl=not text.endswith("\n"))
            return
        from pcd.stage import write_text

        with _told_in_one_line():
            write_text(destination, text)
        click.echo(destination)


def _text(record: "RunRecord", format_name: str) -> str:
    if format_name == "html":
        from eval.report.page import render_report
        from flows.report import gather_report

        return render_report(gather_report(record))
    from eval.formats import table_as

    return table_as(format_name, Path(record.folder))


def _write_page(record: "RunRecord", path: Path | None) -> Path:
    from flows.report import write_benchmark_report

    with _told_in_one_line():
        written = write_benchmark_report(record, path)
    click.echo(f"report: {written}")
    return written


@contextmanager
def _told_in_one_line() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PCDError(f"cannot write the report ({error}); name another file with --to") from None


def _open(path: Path) -> None:
    if not webbrowser.open(path.absolute().as_uri()):
        click.echo("no browser is to be found here; open that file in one", err=True)


def show(record: "RunRecord", as_json: bool) -> None:
    folder = Path(record.folder)
    if not record.has_table:
        run = dataclasses.asdict(record)
        click.echo(json.dumps({"run": run}, indent=2) if as_json else f"pre-trained: {folder} (see `pcd export`)")
        return
    table = json_object(folder / "ap_table.json")
    if not table:
        raise PCDError(f"the table of {record.name} is gone or damaged in {folder}; run the benchmark again")
    if as_json:
        click.echo(json.dumps({"run": dataclasses.asdict(record), "table": table}, indent=2))
        return
    from flows.commands.terminal_table import print_table
    from flows.tracking.saved_views import cells_page, runs_page

    print_table(table)
    click.echo(f"\ntable and figures: {folder}")
    pages = {
        "MLflow": record.mlflow_page,
        "  cells": cells_page(record.mlflow_page, record.mlflow_run_id),
        "  runs": runs_page(record.mlflow_page, record.name),
        "Prefect": record.prefect_page,
    }
    click.echo("pages: `pcd ui` (or `make ui`), then")
    for name, page in pages.items():
        click.echo(f"  {name:<8} {page}")
