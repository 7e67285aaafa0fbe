"""`pcd data`: is a labelled set one that can be trained and evaluated on?"""

import dataclasses
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flows.commands import options
from pcd.cores import usable_cores

if TYPE_CHECKING:
    from eval.datasets.check import Examination
    from eval.settings import LabelledSet
    from flows.settings import Benchmark

__all__ = ["data"]


@click.group()
def data() -> None:
    """Look at labelled sets before anything is trained on them."""


@data.command()
@click.argument("target")
@options.overrides
@options.as_json
def check(target: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Check images, sizes, boxes, masks, categories, and what the splits share. Exit code 1 if something is wrong.

    Every image is decoded: on one core some 500 photographs of COCO's size a second. The data stage of a run does the
    same, but for sets of classes, whose images it lists.

    TARGET is a folder with a set in COCO's format, a VOCdevkit, Cityscapes or a folder for each class; or a profile,
    whose labelled sets are all checked.
    """
    from eval.datasets.check import examine_set
    from eval.datasets.layouts import voc_lists
    from eval.settings import VocSet

    sets, protocol = _sets_of(target, overrides)
    found: dict[str, Examination] = {}
    for name, settings in sets.items():
        if not as_json:
            lists = f": {voc_lists(settings)}" if isinstance(settings, VocSet) else ""
            click.echo(f"{name} ({settings.kind}{lists})")
        found[name] = examine_set(settings, usable_cores(), _show_progress, protocol)
        if not as_json:
            for line in describe(found[name]):
                click.echo(f"  {line}")
    if as_json:
        click.echo(json.dumps({name: dataclasses.asdict(one) for name, one in found.items()}, indent=2))
    if any(one.faults for one in found.values()):
        sys.exit(1)


def describe(one: "Examination") -> list[str]:
    """An examination as lines for people."""
    lines = [f"{split}: {_counted(facts)}" for split, facts in one.facts.items()]
    if one.facts:
        train, val = one.facts["train"], one.facts["val"]
        each = [f"{name} {count:,} + {val.by_category[name]:,}" for name, count in train.by_category.items()]
        low, middle, high = train.sizes
        lines.append(f"{len(each)} categories: {', '.join(each)}")
        lines.append(
            f"objects of the training: 5 % below {low:.0f} pixels, half below {middle:.0f}, 95 % below {high:.0f}"
        )
    if one.classes:
        lines.append(f"{len(one.classes)} classes: {', '.join(one.classes[:20])}{', …' * (len(one.classes) > 20)}")
    if one.fit:
        fit = ", ".join(f"{name} {value}" for name, value in one.fit.items())
        lines.append(f"would fit better than the protocol's: {fit}")
    lines += [f"warning: {line}" for line in one.warnings]
    lines += [f"FAULT: {line}" for line in one.faults]
    return lines if one.faults else [*lines, "nothing wrong was found"]


def _counted(facts: Any) -> str:
    parts = [f"{facts.images:,} images of {facts.shorter[1]:.0f} x {facts.longer[1]:.0f} pixels (median sides)"]
    parts.append(f"{facts.objects:,} objects")
    parts += [f"{facts.crowds:,} crowds"] if facts.crowds else []
    parts += [f"{facts.without_objects:,} images without any"] if facts.without_objects else []
    return ", ".join(parts)


def _sets_of(target: str, overrides: tuple[str, ...]) -> tuple[dict[str, "LabelledSet"], Mapping[str, Any] | None]:
    """Name to settings of each set, and the detector's protocol that they are compared with."""
    from eval.datasets.folder import recognise
    from eval.settings import CocoSet
    from flows.commands.own_set import set_name
    from flows.profiles import PROFILES, load_profile
    from flows.settings import Benchmark
    from pcd.errors import PCDError

    if Path(target).is_dir() and target not in PROFILES:
        return {set_name(Path(target)): recognise(Path(target))}, _detector(Benchmark(name="check"))
    benchmark = load_profile(target, overrides)
    sets: dict[str, LabelledSet] = {"data": benchmark.data} if isinstance(benchmark.data, CocoSet) else {}
    sets |= benchmark.sets
    if not sets:
        raise PCDError(f"{target} has no labelled set of your own to check; the shapes are drawn")
    return sets, _detector(benchmark)


def _detector(benchmark: "Benchmark") -> Mapping[str, Any] | None:
    plain = [protocol.model_dump(mode="json") for protocol in benchmark.protocols.values()]
    return next((one for one in plain if "anchor_sizes" in one), None)


def _show_progress(phase: str, done: int, total: int) -> None:
    if sys.stderr.isatty():
        click.echo(f"\r\x1b[K  {phase} {done:,} of {total:,}" if done < total else "\r\x1b[K", nl=False, err=True)
