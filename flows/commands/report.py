"""`pcd report`: the AP table of a finished benchmark, on the terminal or in a format to paste."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from pcd.errors import PCDError

if TYPE_CHECKING:
    from flows.run_record import RunRecord

__all__ = ["find", "report", "show"]

_FORMATS: Final = ("csv", "json", "md", "latex", "html")  # as eval.formats has them, which imports pandas


@click.command()
@click.argument("benchmark", required=False)
@click.option("--format", "format_name", type=click.Choice(_FORMATS), help="Instead of a table for the terminal.")
@click.option("--to", "destination", type=click.Path(path_type=Path, dir_okay=False), help="Write to this file.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for machines: the run and its table.")
def report(benchmark: str | None, format_name: str | None, destination: Path | None, as_json: bool) -> None:
    """Print the AP table of BENCHMARK (a name or a key), or of the one finished last.

    csv is the long frame of all figures, one row for each cell and metric; the other formats show the table.
    """
    record = find(benchmark)
    if format_name is None:
        if destination is not None:
            raise click.UsageError("--to needs --format")
        show(record, as_json)
        return
    from eval.formats import table_as

    text = table_as(format_name, Path(record.folder))
    if destination is None:
        click.echo(text, nl=not text.endswith("\n"))
        return
    from pcd.stage import write_text

    write_text(destination, text)
    click.echo(destination)


def find(benchmark: str | None) -> "RunRecord":
    """Raises PCDError if there is none of that name."""
    from flows.run_record import latest_record

    record = latest_record(benchmark)
    if record is None:
        raise PCDError(f"no finished benchmark{f' {benchmark}' if benchmark else ''} here; run one: pcd run demo")
    return record


def show(record: "RunRecord", as_json: bool) -> None:
    folder = Path(record.folder)
    if (folder / "backbone.safetensors").exists():  # a benchmark without protocols ends with its last pre-training
        run = dataclasses.asdict(record)
        click.echo(json.dumps({"run": run}, indent=2) if as_json else f"pre-trained: {folder} (see `pcd export`)")
        return
    if not (folder / "ap_table.json").exists():
        raise PCDError(f"the table of {record.name} is no longer in {folder}; run the benchmark again")
    if as_json:
        table = json.loads((folder / "ap_table.json").read_text())
        click.echo(json.dumps({"run": dataclasses.asdict(record), "table": table}, indent=2))
        return
    from flows.commands.terminal_table import print_table

    print_table(folder)
    click.echo(f"\ntable and figures: {folder}")
    click.echo(
        f"pages: `pcd ui` (or `make ui`), then\n  MLflow   {record.mlflow_page}\n  Prefect  {record.prefect_page}"
    )
