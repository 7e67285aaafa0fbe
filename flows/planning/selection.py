"""Which part of a plan is wanted, and which of its stages are computed anew though the store may have them."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from flows.planning.matrix import nearest
from flows.planning.stages import Plan, Stage, with_all_behind
from pcd.errors import PCDError

__all__ = ["select"]


def select(
    plan: Plan, *, only: Sequence[str] = (), from_stage: str | None = None, fresh: bool = False
) -> tuple[Plan, frozenset[str]]:
    """The stages that are needed, and the ids of those to be computed anew.

    Args:
        only: patterns of cells, such as "pcd.*.seed0"; of a benchmark without protocols, of its pre-training runs. The
            plan then holds these cells and all that they need, and no table unless they are all there are.
        from_stage: the id of a stage, a pattern of ids ("finetune:random.*") or a kind ("pretrain"): these stages and
            all behind them are computed anew, the table of the cells included.
        fresh: every stage is.

    Raises:
        PCDError: nothing matches; with the nearest name.
    """
    needed = _needed(plan, only) if only else {stage.id for stage in plan.stages}
    chosen = Plan(plan.benchmark, tuple(stage for stage in plan.stages if stage.id in needed))
    if fresh:
        return chosen, frozenset({*needed, *_table(plan)})
    if from_stage is None:
        return chosen, frozenset()
    first = {stage.id for stage in chosen.stages if from_stage == stage.kind or fnmatchcase(stage.id, from_stage)}
    if not first:
        names = [stage.id for stage in chosen.stages]
        raise PCDError(f'--from: "{from_stage}" is no stage of this plan{nearest(from_stage, names, cutoff=0)}')
    behind = {stage.id for stage in _behind(plan.stages, first)}
    return chosen, frozenset(behind & {*needed, *_table(plan)})


def _needed(plan: Plan, only: Sequence[str]) -> set[str]:
    """The cells that the patterns match, and what they read; the table as well where these are all the cells."""
    names = {stage.id.partition(":")[2]: stage for stage in plan.ends}
    found: set[str] = set()
    for pattern in only:
        matching = [stage.id for name, stage in names.items() if fnmatchcase(name, pattern)]
        if not matching:
            raise PCDError(f'--only: no cell matches "{pattern}"{nearest(pattern, names, cutoff=0)}')
        found.update(matching)
    if len(found) == len(plan.ends):
        return {stage.id for stage in plan.stages}
    return {stage.id for stage in with_all_behind(found, plan)}


def _behind(stages: Iterable[Stage], first: set[str]) -> Iterable[Stage]:
    reached = set(first)
    for stage in stages:
        if stage.id in reached or reached & set(stage.inputs.values()):
            reached.add(stage.id)
            yield stage


def _table(plan: Plan) -> tuple[str, ...]:
    return (plan.stages[-1].id,) if plan.has_table else ()
