import json
from pathlib import Path
from typing import Any

import pytest

from flows.planning.hardware import hardware_here
from flows.planning.measurements import Measurement, write_measurement
from flows.planning.plan import make_plan
from flows.planning.plan_report import PlanReport, StageReport, as_json, command_of, report_plan
from flows.planning.stage_work import circumstances, work_of
from flows.planning.stages import Plan, Stage
from flows.profiles import load_profile
from flows.store.store import Store, open_store


def _plan(*overrides: str) -> Plan:
    return make_plan(load_profile("demo", overrides))


def _finish(store: Store, stage: Stage) -> None:
    (store.work_folder(stage) / "result.json").write_text("{}")
    store.commit(stage, {})


def _of(report: PlanReport, stage_id: str) -> StageReport:
    return next(r for r in report.stages if r.stage.id == stage_id)


@pytest.fixture
def store(pcd_home: Path) -> Store:
    return open_store()


def test_states_are_those_of_the_store(store: Store) -> None:
    plan = _plan()
    _finish(store, plan.stages[0])
    (store.work_folder(plan.stages[2]) / "checkpoint.json").write_text('{"step": 40}')
    report = report_plan(plan, store)
    assert [(r.state, r.step) for r in report.stages[:3]] == [("cached", None), ("to run", None), ("resumable", 40)]
    assert report.counts == {"cached": 1, "to run": 4, "resumable": 1}
    assert report.total.stages == 5


def test_a_stage_that_runs_again_says_which_setting_changed(store: Store) -> None:
    _finish(store, _plan().stages[2])
    report = report_plan(_plan("pretrain.epochs=3"), store)
    assert _of(report, "pretrain:pcd.seed0").why == ("setting pretrain.epochs 2.0 -> 3.0",)
    assert _of(report, "teacher").why == ()


def test_what_is_to_be_computed_anew_runs_though_it_is_stored(store: Store) -> None:
    plan = _plan()
    for stage in plan.stages:
        _finish(store, stage)
    assert report_plan(plan, store).total.stages == 0
    report = report_plan(plan, store, from_stage="finetune:pcd.*")
    assert [r.stage.id for r in report.stages if r.runs] == ["finetune:pcd.shapes_fpn.seed0", "aggregate"]
    assert _of(report, "aggregate").why == ("computed anew, as asked for",)
    assert report_plan(plan, store, fresh=True).total.stages == 6


def test_only_some_cells_are_planned(store: Store) -> None:
    report = report_plan(_plan(), store, only=["random.*"])
    assert [r.stage.id for r in report.stages] == ["data", "finetune:random.shapes_fpn.seed0"]


def test_a_stored_stage_takes_the_disk_that_its_manifest_says(store: Store) -> None:
    plan = _plan()
    (store.work_folder(plan.stages[0]) / "big").write_bytes(b"x" * 3_000_000)
    _finish(store, plan.stages[0])
    assert _of(report_plan(plan, store), "data").disk_mb == pytest.approx(3.0, abs=0.01)


def test_commands_are_those_that_start_the_stages(store: Store) -> None:
    report = report_plan(_plan(), store)
    pretrain = _of(report, "pretrain:pcd.seed0")
    assert command_of(pretrain, report.plan)[1:] == ["-m", "pcd.train", str(pretrain.spec)]
    assert pretrain.spec.parent == store.work_folder(pretrain.stage)


@pytest.mark.parametrize(("parallel", "seconds"), [(1, 9 + 10 + 3 * 100), (2, 10 + 2 * 100), (3, 10 + 100)])
def test_the_total_is_when_the_last_stage_ends(store: Store, parallel: int, seconds: float) -> None:
    changes = ["protocols={}", "seeds=[0, 1, 2]", f"runtime.parallel={parallel}", "runtime.threads=1"]
    plan, took = _plan(*changes, "runtime.device=cpu"), {"data": 10.0, "teacher": 9.0, "pretrain": 100.0}
    for stage in plan.stages[:3]:
        work = work_of(stage, circumstances(plan, on_gpu=False))
        measured = Measurement(
            kind=stage.kind, hardware=hardware_here(plan.benchmark.runtime).name, like=work.like,
            step_gmacs=work.step_gmacs, other=work.other, step_seconds=0.0, other_seconds=took[stage.kind],
        )  # fmt: skip
        write_measurement(measured)
    total = report_plan(plan, store).total
    assert (total.seconds, total.is_measured) == (seconds, True)


def test_json_holds_all_that_is_shown_and_the_commands(store: Store) -> None:
    report: dict[str, Any] = json.loads(json.dumps(as_json(report_plan(_plan(), store))))
    assert report["settings"]["name"] == "demo"
    stage = report["stages"][2]
    assert (stage["id"], stage["state"], stage["command"][1:3]) == ("pretrain:pcd.seed0", "to run", ["-m", "pcd.train"])
    assert stage["estimate"]["time_basis"] == "default"
    assert report["total"]["stages"] == 6
