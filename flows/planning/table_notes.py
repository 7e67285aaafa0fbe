"""What stands under a benchmark's AP table: on whose word its settings rest, terms, and where cells differ."""

from eval.datasets.layouts import voc_departure
from eval.departures import told_departures
from eval.protocols import PROTOCOLS
from eval.settings import VocSet
from flows.planning.labelled_sets import set_of
from flows.settings import Benchmark, ProtocolSettings
from pcd.arms import ARMS
from pcd.settings import flat_settings
from pcd.teachers.registry import TEACHERS

__all__ = ["table_notes"]


def table_notes(benchmark: Benchmark) -> list[str]:
    marked: dict[str, list[str]] = {"abstract": [], "code": [], "comparator": [], "ours": []}
    for name, (value, mark) in flat_settings(benchmark.pretrain).items():
        marked[mark].append(f"{name} {value}")
    sources = (
        ("abstract", "Settings that the paper's abstract states"),
        ("code", "Settings of the authors' released code (allo-rene/pcd@6b0ad4d)"),
        ("ours", "Settings of ours, where neither says or this profile departs from them"),
    )
    notes = [f"{text}: {', '.join(marked[mark])}." for mark, text in sources if marked[mark]]
    notes += _arms(benchmark)
    if any(cell.pretrain or cell.arm == "teacher" for cell in benchmark.cells):
        entry = TEACHERS[benchmark.teacher]
        terms = "not for commercial use" if entry.noncommercial else "commercial use allowed"
        notes.append(f"Teacher: {entry.title}; licence of its weights {entry.licence}, {terms}.")
    if benchmark.data.kind == "shapes":
        notes.append("Data: the procedural set `shapes`; these AP values say nothing about COCO.")
    notes += [_protocol(name, settings, benchmark) for name, settings in benchmark.protocols.items()]
    notes += _departures(benchmark)
    if len({cell.seed for cell in benchmark.cells}) == 1:
        notes.append("One seed: differences between arms within the spread of seeds cannot be told from chance.")
    return notes


def _protocol(name: str, settings: ProtocolSettings, benchmark: Benchmark) -> str:
    """Whose recipe it is, how it departs from that one, and what of it nobody could check."""
    frozen = "; its backbone learns nothing" if getattr(settings, "freeze_backbone", False) else ""
    if settings.base is None:
        return f"Protocol {name}: settings of this profile's own, by no published recipe{frozen}."
    named, departs = PROTOCOLS[settings.base], told_departures(settings)
    parts = [f"departs from {named.name} by {departs}" if departs else "as named", f"source {named.source}"]
    own = benchmark.sets.get(set_of(settings) or "")
    if named.name.startswith("voc_") and isinstance(own, VocSet) and (lists := voc_departure(own)):
        parts.append(f"departs from {named.name}: {lists}")
    parts += [f"unverified: {named.unverified}"] if named.unverified else []
    runs = max(sum(cell.protocol == name and cell.arm == arm for cell in benchmark.cells) for arm in benchmark.arms)
    parts += [f"reported as the mean of {named.trials} trials, here {runs}"] if runs < named.trials else []
    return f"Protocol {name}: {'; '.join(parts)}{frozen}."


def _arms(benchmark: Benchmark) -> list[str]:
    """What those arms are whose name does not say it all, and on whose word."""
    notes = []
    for arm in dict.fromkeys(cell.arm for cell in benchmark.cells):
        entry = ARMS[arm]
        if arm in ("pcd", "random"):
            continue
        changes = [f"{name} {value}" for name, value in entry.changes.items()]
        changes += [f"{name} {option.value:g}" for name, option in entry.options.items()]
        told = f"Arm {arm}: {entry.title}" + (f", with {', '.join(changes)}" if changes else "")
        if arm == "supervised" and benchmark.supervised_file:
            told += f", from the user's file {benchmark.supervised_file.name}"
        told += f"; source: {entry.source}."
        notes.append(told + (f" Not as there: {'; '.join(entry.departures)}." if entry.departures else ""))
    return notes


def _departures(benchmark: Benchmark) -> list[str]:
    """Where cells do not stand on equal terms, or are fewer or more than the product of the axes."""
    notes = []
    for pattern, changes in sorted(benchmark.overrides.items()):
        values = ", ".join(f"{name} {value}" for name, value in sorted(changes.items()))
        notes.append(f"Not on equal terms with the rest: {pattern} with {values}.")
    if benchmark.exclude:
        notes.append(f"Left out by choice: {', '.join(benchmark.exclude)}.")
    if benchmark.include:
        extra = ", ".join(f"{cell.arm}.{cell.protocol}.seed{cell.seed}" for cell in benchmark.include)
        notes.append(f"Added to the arms, protocols and seeds that all share: {extra}.")
    return notes
