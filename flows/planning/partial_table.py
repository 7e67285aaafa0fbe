"""The table over the cells that there are, where others are holes."""

from collections.abc import Mapping
from dataclasses import replace

from flows.planning.keys import key_of, key_parts
from flows.planning.labelled_sets import data_stage
from flows.planning.stages import CELL_KINDS, Plan, Stage

__all__ = ["partial_aggregate"]


def partial_aggregate(plan: Plan, holes: Mapping[str, str]) -> Stage | None:
    """The aggregate stage over the cells that there are, which names the others; its key is not the whole one's.

    Args:
        holes: stage id to the reason why it is not there, such as "failed: …". A stage without an entry of its own is a
            hole where one that it reads is, for the same reason.

    Returns:
        The plan's own aggregate stage if nothing is a hole; None if no cell is left, or the plan has no table.
    """
    if not plan.has_table:
        return None
    whole, reasons = plan.stages[-1], _with_those_behind(plan, holes)
    by_id = {stage.id: stage for stage in plan.stages}
    kept, lost = [], []
    for cell in whole.settings["cells"]:
        reason = reasons.get(_cell_stage(whole, cell["cell"]))
        kept += [cell] if reason is None else []
        lost += [] if reason is None else [cell | {"reason": reason}]
    if not (kept and lost):
        return whole if kept else None
    wanted = [_cell_stage(whole, cell["cell"]) for cell in kept]
    wanted += dict.fromkeys(data_stage(cell["set"]) for cell in kept)
    wanted += dict.fromkeys(f"pretrain:{cell['pretrain']}" for cell in kept if cell["pretrain"])
    inputs = {name: of for name, of in whole.inputs.items() if name in set(wanted)}
    settings = whole.settings | {"cells": kept, "holes": lost}
    parts = key_parts(settings, {name: by_id[of].key for name, of in inputs.items()}, {}, whole.module)
    return replace(whole, settings=settings, inputs=inputs, parts=parts, key=key_of(parts))


def _cell_stage(aggregate: Stage, cell: str) -> str:
    return next(stage for stage in (f"{kind}:{cell}" for kind in CELL_KINDS) if stage in aggregate.inputs)


def _with_those_behind(plan: Plan, holes: Mapping[str, str]) -> dict[str, str]:
    """Every stage that is a hole, or reads one, to the reason: the first one's, with its id."""
    reasons, causes = dict(holes), {stage: f"{stage} {reason}" for stage, reason in holes.items()}
    for stage in plan.stages:
        for source in stage.inputs.values():
            if source in causes and stage.id not in causes:
                reasons[stage.id] = causes[stage.id] = causes[source]
    return reasons
