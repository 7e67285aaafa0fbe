"""Why a stage has to run (again): what differs from the stage of this name that the store has."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from flows.planning.stages import Stage
from flows.store.manifest import MANIFEST, misfits, read_manifest
from flows.store.store import Store
from pcd.flat import flatten

__all__ = ["Difference", "explain", "in_words"]

_FEW = 4


@dataclass(frozen=True, slots=True)
class Difference:
    what: Literal["setting", "file", "source", "input", "damaged", "never ran"]
    name: str
    """A setting with its path (finetune.iterations), a file from outside, a source file, the id of a stage that is
    read, a damaged file of the stage's own; or, of one that never ran, its id."""
    old: Any = None
    """Plain JSON: a setting's value, a hash, a key; None where there was none."""
    new: Any = None


def explain(stage: Stage, store: Store, benchmark: str | None = None) -> list[Difference]:
    """Nothing for a stage that is stored whole.

    Else what is damaged of it; else its differences from the nearest stored stage of the same kind and id: that with
    the fewest, and of several the newest. A stage whose input changed names the input alone; that one's own
    differences say the rest. Quick: the store's manifests are read once for as long as no stage comes or goes.

    Args:
        benchmark: its name; where it ran this stage before, that is what is compared with. A stage of another benchmark
            that differs in more than a few things is no earlier state of this one.
    """
    if damaged := list(_damaged(stage, store)):
        return damaged
    if store.find(stage) is not None:
        return []
    new: dict[str, Any] = json.loads(json.dumps(stage.parts))  # a manifest knows lists, and no tuples
    before = [manifest for manifest in store.index.history(stage.kind, stage.id) if manifest["key"] != stage.key]
    own = [manifest for manifest in before if benchmark in (None, manifest.get("benchmark"))]
    nearest = min(
        ((_differences(manifest, new, stage.inputs), -manifest["finished"]) for manifest in own or before),
        key=lambda found: (len(found[0]), found[1]),
        default=None,
    )
    if nearest is None or (not own and len(nearest[0]) > _FEW):
        return [Difference("never ran", stage.id)]
    return nearest[0]


def _damaged(stage: Stage, store: Store) -> Iterator[Difference]:
    """Where it lies now by size; where flows.store.store moved it aside, by what was found then."""
    folder = store.folder(stage.kind, stage.key)
    manifest = read_manifest(folder)
    if manifest is not None:
        yield from (Difference("damaged", name) for name in misfits(folder, manifest))
    elif folder.exists():
        yield Difference("damaged", MANIFEST)
    elif aside := store.index.moved_aside(stage.kind, stage.key):
        yield from (Difference("damaged", name) for name in _names(aside / "damaged.json"))


def _names(path: Path) -> list[str]:
    try:
        return [str(name) for name in json.loads(path.read_text())]
    except (OSError, ValueError):
        return []


def _differences(manifest: Mapping[str, Any], new: Mapping[str, Any], ids: Mapping[str, str]) -> list[Difference]:
    old: Mapping[str, Any] = manifest["parts"]
    return [
        *(Difference("setting", *values) for values in _changed(flatten(old["settings"]), flatten(new["settings"]))),
        *(Difference("file", *values) for values in _changed(old["files"], new["files"])),
        *(
            Difference("input", ids.get(name, name), was, now)
            for name, was, now in _changed(old["inputs"], new["inputs"])
        ),
        *(Difference("source", *values) for values in _changed(old["sources"], new["sources"])),
    ]


def _changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for name in [*new, *(name for name in old if name not in new)]:
        if name not in old or name not in new or old[name] != new[name]:
            yield name, old.get(name), new.get(name)


def in_words(difference: Difference) -> str:
    """setting finetune.iterations 8 -> 16."""
    match difference.what:
        case "never ran":
            return "never ran"
        case "damaged":
            return f"damaged: {difference.name}"
        case "setting":
            return f"setting {difference.name} {_short(difference.old)} -> {_short(difference.new)}"
        case "input":
            return f"input {difference.name} changed"
        case _:
            done = "added" if difference.old is None else "removed" if difference.new is None else "changed"
            return f"{difference.what} {difference.name} {done}"


def _short(value: Any) -> str:
    if value is None:
        return "none"
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
