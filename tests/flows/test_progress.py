import io

import pytest
from rich.console import Console

from flows.planning.plan import make_plan
from flows.planning.selection import select
from flows.planning.stages import Plan
from flows.profiles import load_profile
from flows.progress import Bars, Lines, describe_plan, make_reporter


@pytest.fixture
def plan() -> Plan:
    return make_plan(load_profile("smoke"))


def test_the_plan_is_told_in_one_line(plan: Plan) -> None:
    told = "benchmark smoke: 2 arms x 1 protocol x 1 seed = 2 cells; 3 of 6 stages in the store"
    assert describe_plan(plan, 3) == told


def test_of_a_selection_what_is_selected_is_told() -> None:
    demo = make_plan(load_profile("demo", ["seeds=[0, 1, 2, 3]"]))
    one, _ = select(demo, only=["random.*.seed1"])
    told = "benchmark demo: 1 of 8 cells (random.shapes_fpn.seed1); 0 of 2 stages in the store"
    assert describe_plan(one, 0) == told
    many, _ = select(demo, only=["random.*"])
    assert "4 of 8 cells (random.shapes_fpn.seed0, random.shapes_fpn.seed1, " in describe_plan(many, 0)
    assert "seed2, 1 more); " in describe_plan(many, 0)


def test_of_a_selection_without_protocols_pretraining_runs_are_told() -> None:
    alone = make_plan(load_profile("demo", ["seeds=[0, 1]", "protocols={}"]))
    chosen, _ = select(alone, only=["pcd.seed1"])
    assert "1 of 2 pre-training runs (pcd.seed1); " in describe_plan(chosen, 0)
    assert "pre-training runs" not in describe_plan(alone, 0)


def test_without_a_terminal_lines_are_plain(plan: Plan) -> None:
    out = io.StringIO()
    with make_reporter(Console(file=out)) as reporter:
        reporter.stage_is_stored(1, 2, plan.stages[0])
        reporter.stage_starts(2, 2, plan.stages[1])
        reporter.stage_ends(plan.stages[1], 3.2, ": 1.8 M parameters")
    assert out.getvalue().splitlines() == [
        f"[1/2] data: found in the store ({plan.stages[0].key[:12]})",
        "[2/2] teacher: starts",
        "[2/2] teacher: done in 3 s: 1.8 M parameters",
    ]


def test_progress_tells_step_loss_and_time_left(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.progress._LINE_EVERY_SECONDS", 0)
    out = io.StringIO()
    lines = Lines(Console(file=out))
    lines.stage_starts(1, 1, plan.stages[2])
    lines.stage_goes_on(plan.stages[2], {"step": 10, "total": 100, "time": 50.0, "loss": 2.5})
    lines.stage_goes_on(plan.stages[2], {"step": 20, "total": 100, "time": 60.0, "loss": 1.5})
    assert out.getvalue().splitlines()[-1] == "[1/1] pretrain:pcd.seed0: 20/100, loss 1.500, 80 s left"


def test_stages_that_run_at_once_are_told_apart(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.progress._LINE_EVERY_SECONDS", 0)
    out = io.StringIO()
    lines = Lines(Console(file=out))
    for number in (3, 4):
        lines.stage_starts(number, 6, plan.stages[number - 1])
    lines.stage_goes_on(plan.stages[2], {"step": 10, "total": 100, "time": 50.0})
    lines.stage_goes_on(plan.stages[3], {"step": 1, "total": 8, "time": 50.0})
    lines.stage_ends(plan.stages[2], 1, "")
    told = out.getvalue().splitlines()
    assert told[2:] == [
        "[3/6] pretrain:pcd.seed0: 10/100",
        "[4/6] finetune:pcd.smoke_fpn.seed0: 1/8",
        "[3/6] pretrain:pcd.seed0: done in 1 s",
    ]


def test_a_phase_without_steps_has_its_own_name_and_pace(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.progress._LINE_EVERY_SECONDS", 0)
    out = io.StringIO()
    lines = Lines(Console(file=out))
    lines.stage_starts(1, 1, plan.stages[3])
    lines.stage_goes_on(plan.stages[3], {"step": 8, "total": 8, "time": 50.0, "loss": 2.5})
    lines.stage_goes_on(plan.stages[3], {"phase": "evaluation", "step": 10, "total": 30, "time": 60.0})
    lines.stage_goes_on(plan.stages[3], {"phase": "evaluation", "step": 20, "total": 30, "time": 70.0})
    told = out.getvalue().splitlines()
    assert told[-2].endswith(": evaluation 10/30")
    assert told[-1].endswith(": evaluation 20/30, 10 s left")


def test_on_a_terminal_a_bar_shows_stage_steps_and_loss(plan: Plan) -> None:
    out = io.StringIO()
    with Bars(Console(file=out, force_terminal=True, width=120)) as bars:
        bars.stage_starts(3, 6, plan.stages[2])
        bars.stage_goes_on(plan.stages[2], {"step": 20, "total": 100, "time": 60.0, "loss": 1.5})
        bars.stage_goes_on(plan.stages[2], {"step": 40, "total": 100, "time": 70.0, "loss": 1.25})
    assert "[3/6] pretrain:pcd.seed0" in out.getvalue()
    assert "40/100" in out.getvalue()
    assert "loss 1.250" in out.getvalue()
