"""What a named protocol's settings are, and how those of a run depart from them; without torch."""

from collections.abc import Mapping
from typing import Any, Final

from eval.finetune_settings import FinetuneSettings
from eval.probes.settings import PROBES
from eval.protocols import PROTOCOLS
from pcd.errors import unknown_name
from pcd.settings import Settings

__all__ = ["departures", "difference", "named_values", "other_share", "protocol_line", "resolve", "told_departures"]

_SETTINGS: Final[Mapping[str, type[Settings]]] = {"detector": FinetuneSettings, **PROBES}
"""Kind of a protocol to its settings."""


def resolve(name: str, changes: Mapping[str, Any] | None = None) -> Settings:
    """The settings of the protocol `name`, with `changes` laid over it.

    Raises:
        PCDError: no protocol has this name; the message has the nearest one.
        ValidationError: a change is not valid.
    """
    values = named_values(name) | dict(changes or {}) | {"base": name}
    return _SETTINGS[values.get("kind", "detector")].model_validate(values)


def named_values(name: str) -> dict[str, Any]:
    """What the protocol `name` and those that it stands on change of the settings' defaults.

    Raises PCDError if no protocol has this name; the message has the nearest one.
    """
    if name not in PROTOCOLS:
        raise unknown_name("protocol", name, PROTOCOLS)
    protocol = PROTOCOLS[name]
    return (named_values(protocol.base) if protocol.base else {}) | dict(protocol.changes)


def difference(settings: Settings, name: str) -> list[tuple[str, Any, Any]]:
    """Every setting in which `settings` leave the protocol `name`: its name, the protocol's value, the value here."""
    named, here = resolve(name).model_dump(mode="json"), settings.model_dump(mode="json")
    return [(field, named.get(field), value) for field, value in here.items() if named.get(field) != value]


def departures(settings: Settings) -> list[tuple[str, Any, Any]]:
    """The difference from the protocol that the settings name as their base; of one without a base, none."""
    base: str | None = getattr(settings, "base", None)
    return difference(settings, base) if base else []


def told_departures(settings: Settings) -> str:
    """The departures as "iterations 9000 (named: 90000), batch 4 (named: 16)"; empty where there is none."""
    return ", ".join(f"{name} {here} (named: {named})" for name, named, here in departures(settings))


def protocol_line(settings: Settings) -> str:
    """For a stage's log: which protocol it goes by, and how it departs from that one."""
    base: str | None = getattr(settings, "base", None)
    if base is None:
        return "a protocol of its own, which departs from no named one"
    told = told_departures(settings)
    return f"departs from the protocol {base}: {told}" if told else f"the protocol {base} as named"


def other_share(settings: Settings, processes: int) -> str | None:
    """A line where each process takes another number of images than the named protocol means; None where it does not.

    The global batch, which is the parameter, is the same; not so are memory, and which images are padded together.
    """
    base: str | None = getattr(settings, "base", None)
    if base is None or not isinstance(settings, FinetuneSettings):
        return None
    named, meant_for = resolve(base), PROTOCOLS[base].world_size
    assert isinstance(named, FinetuneSettings)
    meant, here = named.batch // meant_for, settings.batch / processes
    if here == meant:
        return None
    ranks = f"{processes} processes" if processes > 1 else "one process"
    return (
        f"{settings.batch} images of a step over {ranks} are {here:g} on each, where {base} means {meant} "
        f"({named.batch} over {meant_for}): memory differs, and which images are padded together"
    )
