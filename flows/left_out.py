"""Cells that `--only` leaves out: those that the store has stand in the table all the same."""

from flows.planning.stages import Plan
from flows.runner import Runner

__all__ = ["find_left_out"]


def find_left_out(whole: Plan, chosen: Plan, runner: Runner) -> None:
    """Have the runner know where the cells (without protocols, the pre-training runs) lie that were not asked for.

    A cell counts only with the stages that it was computed from, since the table reads them as well.
    """
    asked_for, stages = {stage.id for stage in chosen.stages}, {stage.id: stage for stage in whole.stages}
    for end in whole.ends:
        if end.id in asked_for:
            continue
        needed = [end, *(stages[of] for of in end.inputs.values() if whole.has_table and of not in runner.folders)]
        found = [runner.find_if_free(stage) for stage in needed]
        if found[0] is not None and None not in found:
            runner.folders[end.id] = found[0]
