"""`pcd trace`: the way back from a cell's AP, as a tree."""

import dataclasses
import json
import shlex
from typing import TYPE_CHECKING

import click

from flows.commands import options
from flows.commands.screen import screen

if TYPE_CHECKING:
    from rich.tree import Tree

    from flows.store.trace import Origin

__all__ = ["trace"]


@click.command()
@click.argument("cell")
@click.argument("benchmark", required=False)
@options.as_json
def trace(cell: str, benchmark: str | None, as_json: bool) -> None:
    """Walk back from the AP of CELL (such as pcd.fpn_1x.seed0) to teacher, data, seeds, commit and commands.

    BENCHMARK is a name or a key; without it, the one finished last.
    """
    from flows.run_record import finished_record
    from flows.store.trace import trace as walk_back

    found = walk_back(finished_record(benchmark), cell)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(found), indent=2))
        return
    from rich.text import Text
    from rich.tree import Tree

    tree = Tree(Text(f"{found.cell} of benchmark {found.benchmark} ({found.benchmark_key[:12]})"))
    if found.figures:
        figures = ", ".join(
            f"{name} {'–' if value is None else f'{value:.3f}'}" for name, value in found.figures.items()
        )
        tree.add(Text(figures))
    if found.table is not None:
        says = "the table says the same" if found.is_as_in_table else "THE TABLE SAYS SOMETHING ELSE"
        tree.add(Text(f"{says}: {found.table}"))
    _add(tree, "", found.origin, set())
    screen(2000).print(tree)


def _add(tree: "Tree", name: str, origin: "Origin", told: set[str]) -> None:
    from rich.text import Text

    branch = tree.add(Text(f"{origin.stage} {origin.key[:12]}" + (f" (its {name})" if name else "")))
    if origin.folder is None:
        branch.add(Text(f"no longer whole in the store (key {origin.key})"))
        return
    if origin.key in told:
        branch.add(Text("as above"))
        return
    told.add(origin.key)
    for fact, value in origin.facts.items():
        branch.add(Text(f"{fact}: {value}"))
    environment = origin.environment
    if environment.get("git_commit"):
        changed = " with uncommitted changes" if environment.get("git_dirty") else ""
        branch.add(Text(f"git commit: {environment['git_commit']}{changed}"))
    if origin.command:
        branch.add(Text(f"command: {shlex.join(origin.command)}"))
    branch.add(Text(f"folder: {origin.folder}"))
    for inner, of in origin.inputs.items():
        _add(branch, inner, of, told)
