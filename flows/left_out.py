"""Cells that `--only` leaves out: those that the store has stand in the table all the same."""

from flows.planning.stages import Plan, with_all_behind
from flows.runner import Runner

__all__ = ["find_left_out"]


def find_left_out(whole: Plan, chosen: Plan, runner: Runner) -> None:
    """Have the runner know where the cells (without protocols, the pre-training runs) lie that were not asked for.

    A cell counts only with what else the table reads of all that it was computed from.
    """
    asked_for = {stage.id for stage in chosen.stages}
    read_by_table = set(whole.stages[-1].inputs.values()) if whole.has_table else set()
    for end in whole.ends:
        if end.id in asked_for:
            continue
        needed = [
            s
            for s in with_all_behind([end.id], whole)
            if s.id in read_by_table and s.id not in {end.id, *runner.folders}
        ]
        found = runner.find_if_free(end)
        if found is not None and all(runner.find_if_free(stage) for stage in needed):
            runner.folders[end.id] = found
