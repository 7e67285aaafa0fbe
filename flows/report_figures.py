"""Which figures a benchmark's report has, by its record and by what the store still has of its stages."""

import shlex
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from eval.report.content import Figure
from eval.report.figures import (
    Gathered,
    Source,
    curve_figure,
    field_figures,
    gallery_figures,
    similarity_figures,
    table_figures,
)
from flows.run_record import RunRecord
from flows.store.manifest import command_again, read_manifest
from flows.store.recorded import stage_folder
from flows.store.trace import Origin, Trace

__all__ = ["in_order", "report_figures"]

_HAVE_LOSSES: Final = ("pretrain", "finetune", "probe")


def report_figures(
    record: RunRecord, table: Mapping[str, Any] | None, traces: Mapping[str, Trace]
) -> tuple[list[Figure], list[str]]:
    """The figures in the order of the page, and a line for each that should be there and is not.

    Args:
        table: ap_table.json, empty if it is gone; None for a benchmark without protocols.
        traces: each cell's way back, of those that the store still has.
    """
    stages = {origin.stage: origin for of in traces.values() for origin in in_order(of.origin)}
    pretrained = {_name(stage): of for stage, of in stages.items() if of.kind == "pretrain" and of.folder}
    parts, source = [], None
    if table is not None:
        source = _source("aggregate", Path(record.folder))
        if source is None:
            parts.append(Gathered(missing=[f"The table's figures: {record.folder} is no longer whole in the store."]))
        else:
            curves = {_name(stage): of.folder for stage, of in stages.items() if of.kind in _HAVE_LOSSES}
            files = {name: Path(folder) / "metrics.jsonl" for name, folder in curves.items() if folder}
            parts.append(table_figures(source, table, files))
    parts.append(_curves(record, pretrained))
    firsts = _sources(_first_seeds(pretrained))
    parts += [field_figures(firsts), similarity_figures(firsts)]
    if source is not None and table is not None:
        parts.append(gallery_figures(source, table))
    return [figure for part in parts for figure in part.figures], [line for part in parts for line in part.missing]


def in_order(origin: Origin) -> Iterator[Origin]:
    """A stage behind all that it rests on, each once."""
    told: set[str] = set()

    def walk(of: Origin) -> Iterator[Origin]:
        if of.key not in told:
            told.add(of.key)
            for inner in of.inputs.values():
                yield from walk(inner)
            yield of

    return walk(origin)


def _curves(record: RunRecord, pretrained: Iterable[str]) -> Gathered:
    """What watched each pre-training. Nothing rests on a watch, so no trail leads there."""
    sources, missing = {}, []
    for name in pretrained:
        watch = f"watch:{name}"
        if watch not in record.stages:
            continue
        folder = stage_folder(record, watch)
        source = _source(watch, folder) if folder else None
        if source is None:
            missing.append(f"AP against epoch of {name}: watch:{name} is not in the store.")
        else:
            sources[name] = source
    gathered = curve_figure(sources) if sources else Gathered()
    return Gathered(gathered.figures, [*missing, *gathered.missing])


def _first_seeds(pretrained: Mapping[str, Origin]) -> dict[str, Origin]:
    """One pre-training of each arm: its seeds look alike."""
    first: dict[str, str] = {}
    for name in pretrained:
        first.setdefault(name.rpartition(".seed")[0], name)
    return {name: pretrained[name] for name in first.values()}


def _sources(origins: Mapping[str, Origin]) -> dict[str, Source]:
    found = {name: _source(of.stage, Path(of.folder or "")) for name, of in origins.items()}
    return {name: source for name, source in found.items() if source}


def _source(stage: str, folder: Path) -> Source | None:
    """None if the store has no such stage."""
    manifest = read_manifest(folder)
    if manifest is None:
        return None
    return Source(stage, folder, frozenset(manifest["files"]), shlex.join(command_again(manifest, folder)))


def _name(stage: str) -> str:
    return stage.partition(":")[2]
