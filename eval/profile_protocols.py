"""A profile's protocols, filled up with what they are named after; without torch."""

from collections.abc import Mapping
from typing import Any

from eval.departures import named_values
from eval.finetune_settings import FinetuneSettings
from eval.protocols import PROTOCOLS
from pcd.errors import PCDError, unknown_name

__all__ = ["with_named_protocols"]


def with_named_protocols(protocols: Mapping[str, Any]) -> dict[str, Any]:
    """A profile's `protocols`, each filled up with what it is named after: `base`, or else its own name.

    `fpn_1x: {}` is the named protocol; `mine: {base: fpn_1x, iterations: 1000}` departs from it; a block that neither
    has a base nor a protocol's name is taken as it stands. `world_size: 4` scales a detector's protocol to so many
    processes by Detectron2's reference-world-size rule.

    Raises ValueError if there is no such base, or the rule leaves no whole batch.
    """
    return {
        name: _filled(name, block or {}) if isinstance(block, Mapping | None) else block
        for name, block in protocols.items()
    }


def _filled(name: str, block: Mapping[str, Any]) -> dict[str, Any]:
    base = block.get("base", name if name in PROTOCOLS else None)
    if base is None:
        if not block:  # it can only mean a named one
            raise ValueError(unknown_name("protocol", name, PROTOCOLS))
        return dict(block)
    try:
        values = named_values(str(base)) | dict(block) | {"base": base}
    except PCDError as error:
        raise ValueError(error) from None
    world_size = values.pop("world_size", None)
    return values if world_size is None else values | _scaled(values, PROTOCOLS[base].world_size, world_size)


def _scaled(values: Mapping[str, Any], reference: int, world_size: Any) -> dict[str, Any]:
    """Detectron2's rule: a process keeps its images, and what it sees in all stays the same.

    Batch and learning rate grow as the processes do; iterations and warm-up fall. See `auto_scale_workers` in
    facebookresearch/detectron2@v0.6 detectron2/engine/defaults.py.
    """
    if values.get("kind", "detector") != "detector":
        raise ValueError("world_size scales detectors; a probe runs in one process")
    if not isinstance(world_size, int) or world_size < 1:
        raise ValueError(f"world_size is the number of processes to scale the protocol to, got {world_size!r}")
    fields = FinetuneSettings.model_fields
    batch, rate, iterations, warmup = (
        values.get(name, fields[name].default) for name in ("batch", "learning_rate", "iterations", "warmup_iterations")
    )
    if batch * world_size % reference:
        raise ValueError(
            f"a batch of {batch}, meant for {reference} processes, leaves {world_size} no whole number of images"
        )
    return {
        "batch": batch * world_size // reference,
        "learning_rate": rate * world_size / reference,
        "iterations": round(iterations * reference / world_size),
        "warmup_iterations": round(warmup * reference / world_size),
    }
