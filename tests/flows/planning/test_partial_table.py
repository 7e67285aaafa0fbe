import pytest

from flows.planning.keys import key_of
from flows.planning.partial_table import partial_aggregate
from flows.planning.plan import make_plan
from flows.planning.stages import Plan
from flows.profiles import load_profile


def _three_seeds() -> Plan:
    return make_plan(load_profile("demo", ["seeds=[0, 1, 2]"]))


def test_without_holes_the_aggregate_is_the_plans_own() -> None:
    plan = _three_seeds()
    assert partial_aggregate(plan, {}) is plan.stages[-1]


def test_a_partial_aggregate_reads_the_cells_that_there_are_and_names_the_others() -> None:
    plan = _three_seeds()
    stage = partial_aggregate(plan, {"finetune:random.shapes_fpn.seed1": "the disk was full"})
    assert stage is not None
    assert set(plan.stages[-1].inputs) - set(stage.inputs) == {"finetune:random.shapes_fpn.seed1"}
    (hole,) = stage.settings["holes"]
    assert (hole["cell"], hole["reason"]) == ("random.shapes_fpn.seed1", "the disk was full")
    assert len(stage.settings["cells"]) == 5
    assert stage.key == key_of(stage.parts) != plan.stages[-1].key


def test_a_hole_in_front_of_cells_is_a_hole_in_all_of_them_for_its_reason() -> None:
    stage = partial_aggregate(_three_seeds(), {"pretrain:pcd.seed2": "was killed by SIGKILL"})
    assert stage is not None
    assert [(hole["cell"], hole["reason"]) for hole in stage.settings["holes"]] == [
        ("pcd.shapes_fpn.seed2", "pretrain:pcd.seed2 was killed by SIGKILL")
    ]
    assert "pretrain:pcd.seed2" not in stage.inputs
    assert "pretrain:pcd.seed1" in stage.inputs


def test_a_teacher_that_is_a_hole_leaves_the_random_arm() -> None:
    stage = partial_aggregate(_three_seeds(), {"teacher": "cannot be fetched"})
    assert stage is not None
    assert {cell["arm"] for cell in stage.settings["cells"]} == {"random"}
    assert {hole["reason"] for hole in stage.settings["holes"]} == {"teacher cannot be fetched"}


@pytest.mark.parametrize("holes", [{"data": "no"}, {"teacher": "no", "finetune:random.shapes_fpn.seed0": "no"}])
def test_without_any_cell_there_is_no_table(holes: dict[str, str]) -> None:
    assert partial_aggregate(make_plan(load_profile("demo")), holes) is None


def test_a_benchmark_without_protocols_has_no_partial_table_either() -> None:
    plan = make_plan(load_profile("demo", ["protocols={}", "seeds=[0, 1]"]))
    assert partial_aggregate(plan, {"pretrain:pcd.seed0": "failed"}) is None
