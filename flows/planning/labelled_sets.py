"""Which labelled set each stage reads, and what of it is this machine's affair."""

from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel

from eval.datasets.layouts import places_of
from eval.settings import ClassSet, CocoData, CocoSet, DataSettings, LabelledSet, PoolData, ShapesData
from flows.planning.matrix import nearest

__all__ = ["check_sets", "data_stage", "places", "set_of", "without_places"]

_PROBES: Final = ("linear", "knn", "low_shot")


def set_of(protocol: BaseModel | Mapping[str, Any]) -> str | None:
    """The name in `sets` that a protocol's settings bear; None: the benchmark's `data`."""
    name = protocol.get("set") if isinstance(protocol, Mapping) else getattr(protocol, "set", None)
    return None if name is None else str(name)


def data_stage(name: str | None) -> str:
    """The id of the stage that leaves the labelled set of this name; None: the benchmark's `data`."""
    return f"data:{name}" if name else "data"


def check_sets(
    protocols: Mapping[str, BaseModel], data: DataSettings, sets: Mapping[str, LabelledSet],
    overrides: Mapping[str, Mapping[str, Any]],
) -> None:  # fmt: skip
    """Raises ValueError if a protocol names a set that is not there, or one that it can do nothing with."""
    for pattern, changes in overrides.items():
        if "set" in changes:
            raise ValueError(
                f'overrides "{pattern}": the labelled set is the protocol\'s; name another protocol for it'
            )
    for protocol, settings in protocols.items():
        name, needs_classes = set_of(settings), getattr(settings, "kind", "detector") in _PROBES
        if name is None and isinstance(data, PoolData):
            raise ValueError(
                f"protocols.{protocol}: `data` is a pool alone; name a labelled set of `sets` in its `set`"
            )
        if name is None:
            continue
        if name not in sets:
            hint = nearest(name, sets) or "; `sets` is empty"
            raise ValueError(f'protocols.{protocol}: unknown set "{name}"{hint} (sets.{name}: {{kind: …}} adds it)')
        if needs_classes != isinstance(sets[name], ClassSet):
            what = "needs a set of kind classes" if needs_classes else "trains a detector, and that set has no objects"
            raise ValueError(f'protocols.{protocol}: set "{name}" is of kind {sets[name].kind}; the protocol {what}')


def without_places(data: DataSettings | LabelledSet) -> dict[str, Any]:
    """A data stage's settings as its key has them: where the user's own data lie is this machine's affair."""
    match data:
        case ShapesData():
            plain = data.model_dump(mode="json")
        case CocoSet():
            # The name of the annotations' file names the data set in what the stage leaves.
            plain = {"kind": data.kind, "name": data.train_annotations.stem}
        case PoolData():
            plain = {"kind": data.kind}
        case _:
            plain = data.model_dump(mode="json", exclude={"folder"})
    return {"data": plain}


def places(data: DataSettings | LabelledSet) -> dict[str, Any] | None:
    """For the runtime of stages that read the user's own data: the data stage may have run where they lay elsewhere."""
    match data:
        case ShapesData():
            return None
        case CocoData():
            return {"data_places": data.model_dump(mode="json", exclude={"kind"})}
        case PoolData():
            return {"data_places": {"pool": str(data.pool)}}
        case _:
            return {"data_places": places_of(data)}
