"""Which cells a benchmark has, and which of their stages depart from its settings; as plain data, before any stage."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

from pydantic import BaseModel, ValidationError

from pcd.arms import ARMS
from pcd.settings import with_changes

__all__ = ["EXTERNAL_ARMS", "PRETRAINED_ARMS", "Cell", "cells_of", "changed", "check_overrides", "matching", "nearest"]

PRETRAINED_ARMS = frozenset(arm.name for arm in ARMS.values() if arm.kind == "pretrain")
"""Arms whose backbone comes from a pre-training run of this benchmark."""
EXTERNAL_ARMS = frozenset(arm.name for arm in ARMS.values() if arm.kind == "external")
"""Arms whose backbone is brought; one for all seeds."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One backbone, fine-tuned by one protocol; without a protocol, pre-training alone."""

    arm: str
    protocol: str | None
    seed: int

    @property
    def id(self) -> str:
        """arm.protocol.seedN, or arm.seedN."""
        return ".".join(part for part in (self.arm, self.protocol, f"seed{self.seed}") if part)

    @property
    def pretrain(self) -> str | None:
        """Name of its pre-training run, arm.seedN, which protocols share."""
        return f"{self.arm}.seed{self.seed}" if self.arm in PRETRAINED_ARMS else None

    @property
    def backbone(self) -> str | None:
        """Id of the stage that leaves its backbone; None: it starts at random."""
        if self.arm in EXTERNAL_ARMS:
            return f"backbone:{self.arm}"
        return f"pretrain:{self.pretrain}" if self.pretrain else None


def cells_of(
    arms: Sequence[str],
    protocols: Sequence[str],
    seeds: Sequence[int],
    exclude: Sequence[str] = (),
    include: Sequence[Cell] = (),
) -> tuple[Cell, ...]:
    """The product in the order of its axes, less what `exclude` matches, and behind it what `include` adds.

    Raises ValueError if a pattern matches nothing, an included cell is there already or has an unknown protocol, or no
    cell is left.
    """
    product = [
        cell
        for arm in arms
        for seed in seeds
        for cell in (Cell(arm, protocol, seed) for protocol in protocols or (None,))
        if protocols or cell.pretrain
    ]
    ids = [cell.id for cell in product]
    excluded = {cell_id for pattern in exclude for cell_id in matching(pattern, ids, "exclude")}
    cells = [cell for cell in product if cell.id not in excluded]
    for cell in include:
        if cell.protocol not in protocols:
            raise ValueError(f'include: unknown protocol "{cell.protocol}"{nearest(str(cell.protocol), protocols)}')
        if cell in cells:
            raise ValueError(f"include: the cell {cell.id} is in the matrix already")
        cells.append(cell)
    if not cells:
        raise ValueError("exclude leaves no cell")
    return tuple(cells)


def matching(pattern: str, ids: Iterable[str], where: str) -> list[str]:
    """The ids that the pattern (* for any text, ?, […]) matches. Raises ValueError, with the nearest id, if none."""
    ids = list(ids)
    found = [one for one in ids if fnmatchcase(one, pattern)]
    if not found:
        raise ValueError(f'{where}: "{pattern}" matches nothing{nearest(pattern, ids, cutoff=0)}')
    return found


def nearest(name: str, valid: Iterable[str], cutoff: float = 0.5) -> str:
    """How an error's line goes on: the nearest name, or one that serves as an example."""
    names = list(valid)
    close = get_close_matches(name, names, n=1, cutoff=cutoff)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; there is {names[0]}, for example" if names else ""


def check_overrides(overrides: Mapping[str, Mapping[str, Any]], settings_of: Mapping[str, BaseModel]) -> None:
    """Raises ValueError unless every pattern matches, every setting is one of its stages', and their values are valid.

    Args:
        settings_of: id of every stage that can be changed to its settings before any change.
    """
    names_of = {id(settings): _leaves(settings.model_dump()) for settings in settings_of.values()}
    for pattern, changes in overrides.items():
        where = f'overrides "{pattern}"'
        if not changes:
            raise ValueError(f"{where} changes nothing")
        for stage in matching(pattern, settings_of, "overrides"):
            names = names_of[id(settings_of[stage])]
            for name in changes:
                if name == "student":
                    raise ValueError(f"{where}: the student is one for all cells; compare students in two benchmarks")
                if name in ("objective", "kind", "base"):
                    raise ValueError(f"{where}: {name} says which arm or protocol it is; name another one instead")
                if name not in names:
                    raise ValueError(f"{where}: {stage} has no setting {name}{nearest(name, names)}")
    for stage, settings in settings_of.items():
        changed(settings, overrides, stage)


def changed(settings: BaseModel, overrides: Mapping[str, Mapping[str, Any]], stage: str) -> dict[str, Any]:
    """The stage's settings as plain JSON data, with the changes of every pattern that matches it.

    Raises ValueError if two patterns set the same thing to different values, so that their order never matters, or a
    value is not valid.
    """
    patterns = [pattern for pattern in overrides if fnmatchcase(stage, pattern)]
    if not patterns:
        return settings.model_dump(mode="json")
    set_by: dict[str, str] = {}
    for pattern in patterns:
        for name, value in overrides[pattern].items():
            other = set_by.setdefault(name, pattern)
            if overrides[other][name] != value:
                raise ValueError(
                    f'overrides: "{other}" and "{pattern}" both set {name} of {stage}, to different values'
                )
    changes = {name: overrides[pattern][name] for name, pattern in set_by.items()}
    try:
        return with_changes(settings, changes).model_dump(mode="json")
    except ValidationError as error:
        fault = error.errors()[0]
        place_name, message = ".".join(map(str, fault["loc"])), fault["msg"].removeprefix("Value error, ")
        raise ValueError(f'overrides "{patterns[0]}" of {stage}: {place_name}: {message}'.replace(": :", ":")) from None


def _leaves(settings: Mapping[str, Any], prefix: str = "") -> list[str]:
    names: list[str] = []
    for name, value in settings.items():
        names += _leaves(value, f"{prefix}{name}.") if isinstance(value, Mapping) else [prefix + name]
    return names
