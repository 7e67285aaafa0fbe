from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run as TrackedRun

from flows.journal import Journal, Run, describe_stages
from flows.planning.plan import Plan, make_plan
from flows.profiles import load_profile
from tests.flows.tracking.tracked_runs import Child, children_of


@pytest.fixture(scope="module")
def plan() -> Plan:
    return make_plan(load_profile("smoke"))


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@pytest.fixture
def journal(plan: Plan, database: str, tmp_path: Path, request: pytest.FixtureRequest) -> Journal:
    """Of a run with a key of its own, so that tests share the database (seconds to make) and nothing else."""
    run = Run(
        id="flow-run", name="smoke", key=request.node.name, process="1:1", started=1.0,
        settings=plan.benchmark.model_dump(mode="json"), stages=describe_stages(plan),
        environment={"python": "3.11", "git_commit": "abc", "git_diff": "+ a line"}, tracking_uri=database,
        artifacts=str(tmp_path / "artifacts"),
    )  # fmt: skip
    return Journal.begin(run, tmp_path)


@pytest.fixture
def client(database: str) -> MlflowClient:
    return MlflowClient(database)


@pytest.fixture
def child(client: MlflowClient, journal: Journal) -> Child:
    def find(stage: str) -> TrackedRun:
        (run,) = [run for run in children_of(client, journal) if run.data.tags["pcd.stage_id"] == stage]
        return run

    return find
