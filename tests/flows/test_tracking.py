import contextlib
import dataclasses
import json
from pathlib import Path

import pytest
from mlflow import MlflowClient

from flows.plan import Plan, Stage, make_plan
from flows.profiles import load_profile
from flows.tracking import Tracker
from pcd.errors import StageFailedError

pytestmark = pytest.mark.filterwarnings(
    # MLflow 3.17 with SQLAlchemy 2.1: theirs.
    "ignore::sqlalchemy.exc.SADeprecationWarning",
    "ignore::ResourceWarning",
)


@pytest.fixture(scope="module")
def plan() -> Plan:
    return make_plan(load_profile("smoke"))


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@pytest.fixture
def plan_of_test(plan: Plan, request: pytest.FixtureRequest) -> Plan:
    """The same plan under another key, so that tests share the database (seconds to make) and nothing else."""
    last = dataclasses.replace(plan.stages[-1], key=request.node.name)
    return Plan(plan.benchmark, (*plan.stages[:-1], last))


@pytest.fixture
def tracker(database: str, plan_of_test: Plan, tmp_path: Path) -> Tracker:
    return Tracker(database, tmp_path / "artifacts", plan_of_test)


def _stage_folder(folder: Path, steps: int) -> Path:
    folder.mkdir(exist_ok=True)
    lines = [{"step": s, "total": steps, "time": 1.0 + s, "loss": 1.0 / s} for s in range(1, steps + 1)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    metrics = {"bbox/AP": 12.5, "bbox/APl": None}
    (folder / "result.json").write_text(json.dumps({"metrics": metrics, "iterations": steps, "seconds": 2.5}))
    return folder


def _pretrain(plan: Plan) -> Stage:
    return next(stage for stage in plan.stages if stage.kind == "pretrain")


def test_a_stage_is_a_child_of_its_benchmark(tracker: Tracker, plan_of_test: Plan, database: str) -> None:
    with tracker.stage_run(_pretrain(plan_of_test), cached=False) as run_id:
        pass
    child = MlflowClient(database).get_run(run_id)
    assert child.data.tags["mlflow.parentRunId"] == tracker.run_id
    assert (child.info.run_name, child.data.tags["pcd.arm"]) == ("pretrain:pcd.seed0", "pcd")


def test_settings_become_params_by_their_dotted_names(tracker: Tracker, plan_of_test: Plan, database: str) -> None:
    with tracker.stage_run(_pretrain(plan_of_test), cached=False) as run_id:
        pass
    assert MlflowClient(database).get_run(run_id).data.params["pretrain.loss.temperature"] == "0.2"


def test_each_step_is_logged_once_though_lines_come_twice(
    tracker: Tracker, plan_of_test: Plan, database: str, tmp_path: Path
) -> None:
    stage, folder = _pretrain(plan_of_test), _stage_folder(tmp_path / "stage", 5)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    with tracker.stage_run(stage, cached=False) as run_id:
        tracker.log_lines(run_id, lines[:3])
        tracker.log_stage_result(run_id, stage, folder)
    history = MlflowClient(database).get_metric_history(run_id, "loss")
    assert [metric.step for metric in history] == [1, 2, 3, 4, 5]


def test_a_retry_continues_its_run(tracker: Tracker, plan_of_test: Plan, database: str, tmp_path: Path) -> None:
    stage, folder = _pretrain(plan_of_test), _stage_folder(tmp_path / "stage", 5)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    with contextlib.suppress(RuntimeError), tracker.stage_run(stage, cached=False) as run_id:
        tracker.log_lines(run_id, lines[:3])
        raise RuntimeError
    first = run_id
    assert MlflowClient(database).get_run(first).info.status == "FAILED"

    again = Tracker(database, tmp_path / "artifacts", plan_of_test)
    with again.stage_run(stage, cached=False) as second:
        again.log_stage_result(second, stage, folder)
    assert (again.run_id, second) == (tracker.run_id, first)
    history = MlflowClient(database).get_metric_history(second, "loss")
    assert [metric.step for metric in history] == [1, 2, 3, 4, 5]
    assert MlflowClient(database).get_run(second).info.status == "FINISHED"


def test_a_stopped_stage_is_killed_and_not_left_running(tracker: Tracker, plan_of_test: Plan, database: str) -> None:
    with pytest.raises(KeyboardInterrupt), tracker.stage_run(_pretrain(plan_of_test), cached=False) as run_id:
        raise KeyboardInterrupt
    assert MlflowClient(database).get_run(run_id).info.status == "KILLED"


def test_ap_is_a_plain_metric_and_an_absent_class_is_none(
    tracker: Tracker, plan_of_test: Plan, database: str, tmp_path: Path
) -> None:
    stage = plan_of_test.cells[0]
    with tracker.stage_run(stage, cached=False) as run_id:
        tracker.log_stage_result(run_id, stage, _stage_folder(tmp_path / "stage", 2))
    metrics = MlflowClient(database).get_run(run_id).data.metrics
    assert metrics["bbox/AP"] == 12.5
    assert "bbox/APl" not in metrics


def test_a_failed_benchmark_says_why(tracker: Tracker, database: str) -> None:
    tracker.fail_benchmark(StageFailedError("out of memory"))
    run = MlflowClient(database).get_run(tracker.run_id)
    assert (run.info.status, run.data.tags["pcd.failure"]) == ("FAILED", "StageFailedError: out of memory")
