"""Going on from a checkpoint, which has to be one of the very run that asks."""

from collections.abc import Mapping
from typing import Any, Final

from pcd.checkpoint import load_checkpoint
from pcd.errors import PCDError
from pcd.flat import flatten
from pcd.stage import Spec

__all__ = ["load_own_checkpoint", "refuse_other_settings"]

_ABSENT: Final = "absent"


def load_own_checkpoint(spec: Spec) -> dict[str, Any] | None:
    """The last state in checkpoint.pt of the run's folder, or None if there is none; metrics behind it are dropped.

    It has to have `step` and `settings`, those of the spec that it was made by.

    Raises PCDError if it is damaged (see pcd.checkpoint), or was made with other settings.
    """
    state = load_checkpoint(spec.out / "checkpoint.pt")
    if state is not None:
        refuse_other_settings(spec, state.get("settings", {}))  # earlier versions of some stages saved none
        print(f"resumed from step {state['step']}")
    spec.metrics.drop_after(state["step"] if state else 0)
    return state


def refuse_other_settings(spec: Spec, settings: Mapping[str, Any]) -> None:
    """Raises PCDError, with the first setting that differs, unless a checkpoint's settings are those of the run."""
    if settings == spec.settings:
        return
    then, now = flatten(settings), flatten(spec.settings)
    pairs = {name: (then.get(name, _ABSENT), now.get(name, _ABSENT)) for name in sorted(then.keys() | now.keys())}
    name = next(name for name, (old, new) in pairs.items() if old != new)
    raise PCDError(
        f"the checkpoint in {spec.out} was made with other settings "
        f"({name}: {pairs[name][0]} then, {pairs[name][1]} now); "
        "give this run another `out`, or delete its checkpoints"
    )
