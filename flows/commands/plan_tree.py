"""The plan as a tree on a terminal: cells, and below each the stages that it is made of."""

import shlex
from collections.abc import Iterator

from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from flows.planning.detectors import shares_that_differ
from flows.planning.plan_report import PlanReport, StageReport, command_of
from flows.words import duration, size

__all__ = ["print_plan"]

_STYLES = {"cached": "green", "remote": "cyan", "resumable": "yellow", "to run": "bold"}
_MOST_REASONS = 4


def print_plan(report: PlanReport, console: Console, *, commands: bool = False) -> None:
    console.print(_tree(report, commands))
    for note in _notes(report):
        console.print(note, soft_wrap=True)


def _tree(report: PlanReport, commands: bool) -> Tree:
    """Stages that all cells share, then each cell with its own; a stage that several need stands below the first."""
    by_id = {r.stage.id: r for r in report.stages}
    in_cells = ("pretrain", "watch", "backbone", "features", "probe", "finetune")
    width = max(len(r.stage.id) + 4 * (r.stage.kind in in_cells) for r in report.stages) + 1
    tree, shown = Tree(_headline(report)), set[str]()

    def add(parent: Tree, r: StageReport, indent: int) -> None:
        if r.stage.id in shown:
            parent.add(Text(f"{r.stage.id} (above)", style="dim"))
            return
        shown.add(r.stage.id)
        node = parent.add(_line(r, width - indent))
        for line in _details(r):
            node.add(line)
        if commands:
            node.add(Text(shlex.join(command_of(r, report.plan)), style="dim"))

    for r in report.stages:
        if r.stage.kind in ("data", "teacher"):
            add(tree, r, 0)
    ends = report.plan.cells or tuple(stage for stage in report.plan.stages if stage.kind == "pretrain")
    for end in ends:
        cell = tree.add(Text(end.id.partition(":")[2], style="bold"))
        inputs = [of for stage_id in end.inputs.values() for of in (*by_id[stage_id].stage.inputs.values(), stage_id)]
        beside = [r.stage.id for r in report.stages if r.stage.beside in inputs]
        for stage_id in dict.fromkeys((*inputs, *beside, end.id)):
            if by_id[stage_id].stage.kind in in_cells:
                add(cell, by_id[stage_id], 4)
    for r in report.stages:
        if r.stage.kind == "aggregate":
            add(tree, r, 0)
    return tree


def _headline(report: PlanReport) -> Text:
    cells = len(report.plan.cells) or sum(stage.kind == "pretrain" for stage in report.plan.stages)
    counts = ", ".join(f"{count} {state}" for state, count in report.counts.items())
    return Text(f"benchmark {report.plan.benchmark.name}: {cells} cells, {len(report.stages)} stages: {counts}")


def _line(r: StageReport, width: int) -> Text:
    step = f" from step {r.step}" if r.state == "resumable" and r.step is not None else ""
    line = Text(f"{r.stage.id:{width}} ")
    line.append(f"{r.state + step:10}", style=_STYLES[r.state])
    if not r.runs:
        return line.append(f" {size(1e6 * r.disk_mb):>9} on disk", style="dim")
    e = r.estimate
    spread = f" ({duration(e.low)} to {duration(e.high)})" if e.high > 1.05 * e.low else ""
    basis = f"{e.time_basis}, {e.measurements} run{'s' * (e.measurements > 1)}" if e.measurements else e.time_basis
    line.append(f" {duration(e.seconds) + spread:>9}", style="")
    line.append(f" [{basis}]", style="dim" if e.time_basis == "measured" else "magenta")
    line.append(f"  memory {size(1e6 * e.memory_mb)} [{e.memory_basis}]  disk {size(1e6 * r.disk_mb)}", style="dim")
    return line


def _details(r: StageReport) -> Iterator[Text]:
    for missing in r.stage.missing:
        yield Text(f"missing: {missing}", style="bold red")
    for reason in r.why[:_MOST_REASONS]:
        yield Text(f"why: {reason}", style="yellow")
    if len(r.why) > _MOST_REASONS:
        yield Text(f"why: {len(r.why) - _MOST_REASONS} more (--json lists them)", style="yellow")


def _notes(report: PlanReport) -> Iterator[Text]:
    total, hardware = report.total, report.hardware
    if not total.stages:
        yield Text("nothing to run: all of it is stored")
        return
    spread = f" ({duration(total.low)} to {duration(total.high)})" if total.high > 1.05 * total.low else ""
    most = "GPU memory" if hardware.is_gpu else "memory"
    parallel = report.plan.benchmark.runtime.parallel
    at_once = f", {parallel} stages at once" if parallel > 1 else ""
    yield Text(
        f"to run: {total.stages} stages, {duration(total.seconds)}{spread} on {hardware.name}{at_once}; "
        f"{most} up to {size(1e6 * total.memory_mb)}, disk {size(1e6 * total.disk_mb)} at most"
    )
    if not total.is_measured:
        yield Text(
            "[default]: from stated speeds, good to a factor of about 3; [scaled]: from other work on this hardware. "
            "Each stage that runs here makes the next plan's figures [measured].",
            style="dim",
        )
    runtime = report.plan.benchmark.runtime
    for line in shares_that_differ(report.plan.benchmark.protocols, runtime.processes * runtime.nodes):
        yield Text(line, style="yellow")
    if report.images.assumed:
        i = report.images
        yield Text(f"images assumed where data are missing: {i.pool:,} + {i.train:,} + {i.val:,}", style="dim")
    if report.plan.missing:
        count = len(report.plan.missing)
        yield Text(f"{count} input{'s are' if count > 1 else ' is'} missing; a run would refuse", style="bold red")
