"""`pcd compare`: two finished benchmarks, the difference of their figures, and what else is not the same."""

import json
from typing import TYPE_CHECKING

import click

from flows.commands import options
from pcd.errors import PCDError

if TYPE_CHECKING:
    from flows.run_record import RunRecord

__all__ = ["compare"]


@click.command()
@click.argument("before")
@click.argument("after")
@options.as_json
def compare(before: str, after: str, as_json: bool) -> None:
    """Compare the AP tables of two finished benchmarks (names, keys, or the parts of reruns).

    Differences are AFTER minus BEFORE, with their intervals (95 %) over seeds and, where both were evaluated on the
    same images, over these. Below stands what else differs: settings, data, source, versions, hardware.
    """
    from eval.compare import ComparedRun, changes, comparison_note, printed_comparison
    from eval.compare import compare as compare_runs
    from flows.run_record import finished_record
    from flows.run_results import cell_folders, cells_of
    from pcd.cores import usable_cores

    def read(name: str) -> tuple["RunRecord", ComparedRun]:
        record = finished_record(name)
        cells = cells_of(record)
        if not cells:
            raise PCDError(f"benchmark {record.name} has no cells to compare; it pre-trains alone")
        return record, ComparedRun(cells, cell_folders(record), float(record.settings.get("noise_ap", 0)))

    (old, of_old), (new, of_new) = read(before), read(after)
    table, changed = compare_runs(of_old, of_new, usable_cores()), changes(of_old.cells, of_new.cells)
    if table.empty:
        raise PCDError(f"neither {old.name} nor {new.name} has a figure left in the store; run one of them again")
    if as_json:
        rows = json.loads(table.to_json(orient="records"))
        keys = {"before": old.key, "after": new.key}
        click.echo(json.dumps({"runs": keys, "figures": rows, "changes": changed}, indent=2))
        return
    from flows.commands.terminal_table import plain_table, print_tables

    title = f"{new.part or new.name} ({new.key[:12]}) against {old.part or old.name} ({old.key[:12]})"
    note = comparison_note(max(of_old.noise_ap, of_new.noise_ap))
    print_tables([plain_table(title, printed_comparison(table))], [note])
    together = set(table.loc[table["n before"] > 0, "protocol"]) & set(table.loc[table["n after"] > 0, "protocol"])
    if not together:
        click.echo("The runs have no protocol in common: nothing here can be compared.")
    for base, lines in changed.items():
        click.echo(f"{base}:")
        for line in lines:
            click.echo(f"  {line}")
    if not changed:
        click.echo("Nothing else differs: settings, data, source, versions and hardware are the same.")
