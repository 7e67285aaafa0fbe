"""`--data FOLDER`: a profile with a labelled set of the user's own in place of the ones that its protocols name."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click

from eval.datasets.layouts import voc_departure, voc_lists
from eval.probes.settings import PROBES
from eval.protocols import PROTOCOLS
from eval.settings import CityscapesSet, ClassSet, CocoData, CocoSet, LabelledSet, VocSet
from flows.profiles import load_profile
from flows.settings import Benchmark
from pcd.errors import PCDError

__all__ = ["load_with_data", "set_name", "with_own_set"]

_MOST_NAMES: Final = 20


def set_name(folder: Path) -> str:
    """The folder's name as a set may bear it."""
    return re.sub(r"[^a-z0-9_-]+", "-", folder.resolve().name.lower()).strip("-_") or "own"


def load_with_data(profile: str, overrides: Sequence[str], folder: Path | None) -> Benchmark:
    """The profile, on the set in `folder` if there is one; what was derived from it is told on standard error."""
    if folder is None:
        return load_profile(profile, overrides)
    benchmark, lines = with_own_set(profile, overrides, folder)
    for line in lines:
        click.echo(line, err=True)
    return benchmark


def with_own_set(profile: str, overrides: Sequence[str], folder: Path) -> tuple[Benchmark, list[str]]:
    """The profile, its protocols on the set in `folder`, and lines that say so.

    Of a set in COCO's format, what of a detector's sizes and anchors does not fit is fitted (eval.datasets.facts);
    what `overrides` set stays. The pool for pre-training remains the profile's.

    Raises:
        PCDError: no set is recognised, its annotations have a fault, no protocol can be used on its kind, or its
            official evaluation is not installed.
    """
    # Late: these cost a plan of a profile as it is more than all else.
    from eval.coco_check import check_coco
    from eval.datasets.cityscapes_score import MISSING_SCRIPTS, has_scripts
    from eval.datasets.facts import fit_detector
    from eval.datasets.folder import recognise

    benchmark, settings, name = load_profile(profile, overrides), recognise(folder), set_name(folder)
    plain = {key: protocol.model_dump(mode="json") for key, protocol in benchmark.protocols.items()}
    takes_classes = isinstance(settings, ClassSet)
    fitting = {key: one for key, one in plain.items() if (one.get("kind") in PROBES) == takes_classes}
    if not fitting:
        what = "detector's protocol" if not takes_classes else f"probe ({', '.join(PROBES)})"
        raise PCDError(f"{folder} is of kind {settings.kind}, and profile {profile} has no {what} to use it")
    if isinstance(settings, CityscapesSet) and not has_scripts():
        raise PCDError(MISSING_SCRIPTS)
    changes: dict[str, Any] = {f"sets.{name}": settings.model_dump(mode="json")}
    given, lines, train = {one.partition("=")[0] for one in overrides}, [f"set {name}: {_told(settings)}"], None
    if isinstance(settings, CocoSet):
        train = check_coco(settings.train_annotations, settings.train_images)
        lines += _facts(train, settings)
    for key, protocol in fitting.items():
        fit = fit_detector(train, protocol) if train is not None else {}
        fit = {field: value for field, value in fit.items() if f"protocols.{key}.{field}" not in given}
        told = ", ".join(f"{field} {protocol[field]} -> {value}" for field, value in fit.items())
        lines.append(f"protocol {key}: {told or 'its sizes and anchors are kept'}{_departure(protocol, settings)}")
        chosen = {"set": name} | ({"score_by": settings.kind} if "score_by" in protocol else {}) | fit
        changes |= {f"protocols.{key}.{field}": value for field, value in chosen.items()}
    if isinstance(benchmark.data, CocoData) and len(fitting) == len(plain):  # nothing reads its labelled images
        changes["data"] = {"kind": "pool", "pool": str(benchmark.data.pool)}
    return load_profile(profile, [*overrides, *(f"{key}={json.dumps(value)}" for key, value in changes.items())]), lines


def _told(settings: LabelledSet) -> str:
    if isinstance(settings, CocoSet):
        return f"COCO annotations {settings.train_annotations} and {settings.val_annotations}"
    lists = f", {voc_lists(settings)}" if isinstance(settings, VocSet) else ""
    return f"{settings.kind} in {settings.folder}{lists}"


def _departure(protocol: Mapping[str, Any], settings: LabelledSet) -> str:
    """Where a protocol of VOC keeps its name and not its images."""
    named = PROTOCOLS.get(protocol.get("base") or "")
    line = voc_departure(settings) if isinstance(settings, VocSet) else None
    return f"; departs from {named.name}: {line}" if line and named and named.data_kind == "voc" else ""


def _facts(train: Mapping[str, Any], settings: CocoSet) -> list[str]:
    from eval.coco_check import why_nothing_to_learn
    from eval.datasets.facts import split_facts

    if line := why_nothing_to_learn(train, str(settings.train_annotations)):
        raise PCDError(line)
    facts = split_facts(train)
    names = list(facts.by_category)
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return [
        f"{len(names)} categories: {', '.join(names[:_MOST_NAMES])}{more}",
        f"{facts.images:,} training images of {facts.shorter[1]:.0f} x {facts.longer[1]:.0f} pixels (median sides), "
        f"{facts.objects:,} objects of {facts.sizes[0]:.0f} to {facts.sizes[2]:.0f} pixels (5 and 95 %)",
    ]
