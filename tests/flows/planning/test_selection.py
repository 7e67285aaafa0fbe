import pytest

from flows.planning.plan import make_plan
from flows.planning.selection import select
from flows.planning.stages import Plan
from flows.profiles import load_profile
from pcd.errors import PCDError


@pytest.fixture(scope="module")
def plan() -> Plan:
    return make_plan(load_profile("demo", ["seeds=[0, 1]"]))


def _ids(plan: Plan) -> list[str]:
    return [stage.id for stage in plan.stages]


def test_without_a_choice_all_is_needed_and_nothing_is_computed_anew(plan: Plan) -> None:
    assert select(plan) == (plan, frozenset())


def test_only_one_arm_needs_no_more_than_what_it_reads(plan: Plan) -> None:
    chosen, anew = select(plan, only=["random.*"])
    assert _ids(chosen) == ["data", "finetune:random.shapes_fpn.seed0", "finetune:random.shapes_fpn.seed1"]
    assert not chosen.has_table
    assert anew == frozenset()


def test_patterns_add_up_and_keep_the_plans_order(plan: Plan) -> None:
    chosen, _ = select(plan, only=["random.*.seed1", "pcd.*.seed1"])
    assert _ids(chosen) == [
        *("data", "teacher", "pretrain:pcd.seed1", "finetune:pcd.shapes_fpn.seed1"),
        "finetune:random.shapes_fpn.seed1",
    ]


def test_all_cells_make_the_table(plan: Plan) -> None:
    assert select(plan, only=["pcd.*", "random.*"])[0] == plan


def test_without_protocols_pretraining_runs_are_chosen() -> None:
    alone = make_plan(load_profile("demo", ["seeds=[0, 1]", "protocols={}"]))
    assert _ids(select(alone, only=["pcd.seed1"])[0]) == ["data", "teacher", "pretrain:pcd.seed1"]


def test_from_a_stage_it_and_all_behind_it_are_computed_anew(plan: Plan) -> None:
    chosen, anew = select(plan, from_stage="pretrain:pcd.seed1")
    assert chosen == plan
    assert anew == {"pretrain:pcd.seed1", "finetune:pcd.shapes_fpn.seed1", "aggregate"}


def test_from_a_kind_all_of_the_kind_are(plan: Plan) -> None:
    _, anew = select(plan, from_stage="finetune")
    assert anew == {stage.id for stage in plan.stages if stage.kind in ("finetune", "aggregate")}


def test_from_within_only_leaves_the_other_cells_alone(plan: Plan) -> None:
    _, anew = select(plan, only=["random.*"], from_stage="data")
    cells = {f"finetune:random.shapes_fpn.seed{seed}" for seed in (0, 1)}
    assert anew == {"data", *cells, "aggregate"}  # the table of the chosen cells


def test_fresh_is_everything_that_is_needed(plan: Plan) -> None:
    assert select(plan, fresh=True)[1] == set(_ids(plan))
    assert select(plan, only=["random.*.seed0"], fresh=True)[1] == {
        "data", "finetune:random.shapes_fpn.seed0", "aggregate"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        ({"only": ["randm.*.seed0"]}, '--only: no cell matches "randm.*.seed0"; did you mean random.shapes_fpn.seed0?'),
        ({"from_stage": "pretrain:pcd.seed3"}, "is no stage of this plan; did you mean pretrain:pcd.seed"),
        ({"only": ["random.*"], "from_stage": "teacher"}, '--from: "teacher" is no stage of this plan'),
    ],
)
def test_what_matches_nothing_is_named_with_the_nearest(plan: Plan, choice: dict[str, object], told: str) -> None:
    with pytest.raises(PCDError) as caught:
        select(plan, **choice)  # type: ignore[arg-type]
    assert told in str(caught.value)
