from flows.failures import why_missing
from flows.planning.plan import make_plan
from flows.planning.stages import Plan, with_all_behind
from flows.profiles import load_profile
from flows.run_record import NOT_ASKED_FOR
from pcd.errors import StageFailedError


def _plan() -> Plan:
    return make_plan(load_profile("smoke"))


def test_a_hole_names_the_failure_that_it_comes_from_however_far_behind() -> None:
    plan = _plan()
    failures: dict[str, Exception] = {"teacher": StageFailedError("the disk is full; the last lines of /a/log.txt")}
    (cell,) = (stage for stage in plan.stages if stage.id == "finetune:pcd.smoke_fpn.seed0")
    assert why_missing(cell, plan, failures) == "teacher: the disk is full"


def test_a_cell_that_the_plan_leaves_out_was_not_asked_for() -> None:
    plan = _plan()
    cell = plan.cells[0]
    left = Plan(plan.benchmark, tuple(stage for stage in plan.stages if stage.id != cell.id))
    assert why_missing(cell, left, {}) == NOT_ASKED_FOR


def test_a_stage_rests_on_its_inputs_and_theirs_and_on_nothing_else() -> None:
    plan = _plan()
    found = {stage.id for stage in with_all_behind(["finetune:pcd.smoke_fpn.seed0"], plan)}
    assert found == {"data", "teacher", "pretrain:pcd.seed0", "finetune:pcd.smoke_fpn.seed0"}
    assert [stage.id for stage in with_all_behind(["data"], plan)] == ["data"]
