"""Named benchmarks as YAML files that say only what differs from the defaults."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import BaseModel, ValidationError

from flows.settings import Benchmark
from pcd.errors import PCDError, unknown_name

__all__ = ["PROFILES", "load_profile"]

PROFILES: Final = {path.stem: path for path in sorted(Path(__file__).parent.glob("*.yaml"))}


def load_profile(name: str, overrides: Sequence[str] = ()) -> Benchmark:
    """A profile by name, or any YAML file by path, with `overrides` such as "pretrain.epochs=2" laid over it.

    Raises:
        PCDError: unknown name or setting (with the nearest valid one), a value of the wrong kind or out of range.
    """
    path = PROFILES.get(name) or (Path(name) if name.endswith((".yaml", ".yml")) else None)
    if path is None:
        raise unknown_name("profile", name, PROFILES)
    raw = _read(path)
    for override in overrides:
        _lay_over(raw, override)
    return validate(raw, f"profile {name}")


def validate(raw: Any, where: str) -> Benchmark:
    try:
        return Benchmark.model_validate(raw)
    except ValidationError as error:
        raise PCDError(f"{where}: {_one_line(error)}") from None


def _read(path: Path) -> dict[str, Any]:
    try:
        raw = yaml.safe_load(path.read_text())
    except OSError as error:
        raise PCDError(f"cannot read profile {path} ({error.strerror}); valid names: {', '.join(PROFILES)}") from None
    except yaml.YAMLError as error:
        raise PCDError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise PCDError(f"{path} holds no settings; a profile is a YAML mapping with at least a name")
    return raw


def _lay_over(raw: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise PCDError(f'"{override}" sets nothing; write SETTING=VALUE, such as pretrain.epochs=2')
    *folders, last = key.split(".")
    place = raw
    for folder in folders:
        place = place.setdefault(folder, {})
        if not isinstance(place, dict):
            raise PCDError(f'"{override}": {folder} is a value, not a group of settings')
    try:
        place[last] = yaml.safe_load(value)
    except yaml.YAMLError:
        raise PCDError(f'"{override}": {value} is not a YAML value') from None


def _one_line(error: ValidationError) -> str:
    parts = []
    for fault in error.errors():
        place = _as_written(fault["loc"])
        where = ".".join(str(part) for part in place)
        if fault["type"] == "extra_forbidden":
            parts.append(f"unknown setting {where}{_nearest(place)}")
        else:
            message = fault["msg"].removeprefix("Value error, ")
            got = "" if isinstance(fault["input"], Mapping | BaseModel) else f", got {fault['input']!r}"
            parts.append(f"{where or 'settings'}: {message[:1].lower()}{message[1:]}{got}")
    return "; ".join(parts)


def _as_written(loc: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Without the kind of a protocol, which pydantic puts behind its name: protocols.fpn_1x.detector.iterations."""
    return (*loc[:2], *loc[3:]) if loc[:1] == ("protocols",) else loc


def _nearest(loc: tuple[int | str, ...]) -> str:
    """The nearest of all setting names, wherever they are: who looked in the wrong group is helped as well."""
    wanted = str(loc[-1])
    names = dict(_all_names(Benchmark, ""))
    best = get_close_matches(wanted, names.values(), n=1, cutoff=0.5)
    if not best:
        return "; `pcd plan PROFILE --json` lists them all"
    group = ".".join(str(part) for part in loc[:-1])
    dotted = [full for full, last in names.items() if last == best[0]]
    nearest = next((full for full in dotted if full.startswith(group)), dotted[0])
    return f"; did you mean {nearest}?"


def _all_names(model: type[BaseModel], prefix: str) -> list[tuple[str, str]]:
    names: list[tuple[str, str]] = []
    for name, field in model.model_fields.items():
        names.append((prefix + name, name))
        for kind in _models_in(field.annotation):
            names += _all_names(kind, f"{prefix}{name}.")
    return names


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in getattr(annotation, "__args__", ()) for model in _models_in(inner)]
