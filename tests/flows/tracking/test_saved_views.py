import json
from pathlib import Path

import pytest
from mlflow import MlflowClient

from flows.journal import Journal
from flows.tracking.saved_views import cells_page, runs_page
from flows.tracking.tracker import Tracker
from tests.flows.tracking.tracked_runs import CELL, PRETRAIN, finished_stage, parent_of, publish

pytestmark = pytest.mark.filterwarnings(
    # MLflow 3.17 with SQLAlchemy 2.1: theirs.
    "ignore::sqlalchemy.exc.SADeprecationWarning",
    "ignore::ResourceWarning",
)

PAGE = "http://127.0.0.1:5000/#/experiments/1/runs/abc?workflowType=machine_learning"


def test_links_open_the_training_view_of_the_same_experiment() -> None:
    start = "http://127.0.0.1:5000/#/experiments/1/runs?viewStateShareKey="
    assert runs_page(PAGE, "demo") == f"{start}pcd.demo.runs&workflowType=machine_learning"
    assert cells_page(PAGE, "abc") == f"{start}pcd.cells.abc&workflowType=machine_learning"


@pytest.fixture
def view(journal: Journal, client: MlflowClient, tmp_path: Path) -> dict[str, dict[str, str]]:
    """What the views' tags hold after a run with a table, by the key in the links."""
    for stage in (PRETRAIN, CELL):
        journal.note("done", stage, folder=finished_stage(tmp_path / stage.replace(":", "-")))
    publish(journal)
    rows = [{"arm": "pcd", "protocol": "smoke_fpn", "bbox/AP mean": 33.0, "bbox/APs mean": 1.0}]
    (tmp_path / "ap_table.json").write_text(json.dumps({"arms": rows}))
    for name in ("ap_summary.md", "ap_table.md"):
        (tmp_path / name).write_text("| arm |\n")
    Tracker(journal.run).log_table(tmp_path)
    tags = client.get_experiment(parent_of(client, journal).info.experiment_id).tags
    prefix = "mlflow.sharedViewState."
    return {name.removeprefix(prefix): json.loads(v) for name, v in tags.items() if name.startswith(prefix)}


def test_a_benchmarks_runs_stand_side_by_side_with_each_arms_ap(
    view: dict[str, dict[str, str]], client: MlflowClient, journal: Journal
) -> None:
    state = json.loads(view["pcd.smoke.runs"]["state"])
    assert "metrics.`pcd/smoke_fpn/bbox/AP`" in state["selectedColumns"]
    assert "metrics.`pcd/smoke_fpn/bbox/APs`" not in state["selectedColumns"]
    parent = parent_of(client, journal)
    found = client.search_runs([parent.info.experiment_id], state["searchFilter"])
    assert parent.info.run_id in {run.info.run_id for run in found}
    assert {run.data.tags["pcd.stage"] for run in found} == {"benchmark"}


def test_the_cells_of_a_run_are_listed_and_nothing_else(
    view: dict[str, dict[str, str]], client: MlflowClient, journal: Journal
) -> None:
    parent = parent_of(client, journal).info
    of_run = view[f"pcd.cells.{parent.run_id}"]
    state = json.loads(of_run["state"])
    found = client.search_runs([parent.experiment_id], state["searchFilter"])
    assert [run.data.tags["pcd.stage_id"] for run in found] == [CELL]
    assert {"tags.`pcd.arm`", "metrics.`bbox/AP`"} <= set(state["selectedColumns"])
    assert (of_run["name"], type(of_run["createdAt"])) == (f"smoke: cells of {parent.run_id[:8]}", int)
