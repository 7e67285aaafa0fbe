import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from mlflow import MlflowClient
from prefect.client.orchestration import get_client

from flows.journal import Journal, Run
from flows.reconcile import close, reconcile
from flows.supervision.processes import SUPERVISOR_MARK, identity, is_alive
from tests.patience import PATIENCE

pytestmark = [
    pytest.mark.slow,  # a real server is started
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning", "ignore::ResourceWarning"),
]

_STAGE = {"kind": "pretrain", "key": "k", "module": "m", "settings": {}, "labels": {}, "inputs": {}}


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With MLflow's tables, which take seconds to make."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def dead() -> str:
    """The identity of a process that has ended."""
    process = subprocess.Popen(["sleep", "60"])
    mark = identity(process.pid)
    process.kill()
    process.wait()
    return mark


@pytest.fixture
def journal(prefect_api: str, dead: str, empty_database: Path, tmp_path: Path) -> Journal:
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    with get_client(sync_client=True) as client:
        flow = client.create_flow_from_name("benchmark")
        state = {"type": "RUNNING", "name": "Running"}
        response = client._client.post("/flow_runs/", json={"flow_id": str(flow), "state": state})
    run = Run(
        id=response.json()["id"], name="a", key=f"key of {tmp_path.name}", process=dead, started=1.0, settings={},
        stages={"pretrain:x": _STAGE}, environment={}, tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}",
        artifacts=str(tmp_path / "artifacts"), prefect_api=prefect_api,
    )  # fmt: skip
    journal = Journal.begin(run, tmp_path)
    work = tmp_path / "work"
    work.mkdir()
    (work / "metrics.jsonl").write_text('{"step": 1, "total": 2, "time": 1.0, "loss": 0.5}\n')
    journal.note("running", "pretrain:x", folder=str(work))
    return journal


@pytest.fixture
def child_of_the_dead(dead: str) -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(600)"], env=os.environ | {SUPERVISOR_MARK: dead}
    )
    yield process
    process.kill()
    process.wait()


def _statuses(journal: Journal) -> dict[str, str]:
    client = MlflowClient(journal.run.tracking_uri)
    experiment = client.get_experiment_by_name("pcd-benchmarks")
    return {run.info.run_name: run.info.status for run in client.search_runs([experiment.experiment_id])}


def test_a_run_whose_process_died_is_closed_everywhere(
    journal: Journal, child_of_the_dead: "subprocess.Popen[bytes]", tmp_path: Path
) -> None:
    assert reconcile(tmp_path) == ["run a had died and is closed"]
    assert _statuses(journal) == {"a": "FAILED", "pretrain:x": "FAILED"}
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(UUID(journal.run.id)).state
    assert state is not None
    assert state.name == "Crashed"
    child_of_the_dead.wait(PATIENCE)
    assert not list((tmp_path / "active").iterdir())


def test_a_run_that_lives_is_left_alone(journal: Journal, tmp_path: Path) -> None:
    alive = Journal.begin(Run(**{**_fields(journal.run), "process": identity(), "id": "other"}), tmp_path)
    reconcile(tmp_path)
    assert alive.path.exists()
    assert is_alive(alive.run.process)


def test_of_several_only_the_named_one_is_closed(journal: Journal, tmp_path: Path) -> None:
    other = Journal.begin(Run(**{**_fields(journal.run), "id": "other"}), tmp_path)
    reconcile(tmp_path, only=journal.path)
    assert (journal.path.exists(), other.path.exists()) == (False, True)


def test_what_mlflow_cannot_be_told_now_is_told_later(journal: Journal, tmp_path: Path) -> None:
    database = (tmp_path / "mlflow.db").rename(tmp_path / "away.db")
    (tmp_path / "mlflow.db").mkdir()  # no database can be opened there
    (line,) = reconcile(tmp_path)
    assert "could not be told of it yet" in line
    assert journal.path.exists()
    (tmp_path / "mlflow.db").rmdir()
    database.rename(tmp_path / "mlflow.db")
    assert reconcile(tmp_path) == []
    assert _statuses(journal) == {"a": "FAILED", "pretrain:x": "FAILED"}
    assert not journal.path.exists()


def test_what_mlflow_was_told_is_not_told_again(journal: Journal, tmp_path: Path) -> None:
    journal.note("failed", "pretrain:x")
    journal.note("failed")
    journal.mark_told("mlflow")
    (tmp_path / "mlflow.db").unlink()
    assert close(journal)
    assert not (tmp_path / "mlflow.db").exists()


def test_a_stage_whose_end_could_not_be_written_down_does_not_run_for_ever(journal: Journal) -> None:
    journal.note("failed", reason="no space left on the disk")
    assert close(journal)
    assert _statuses(journal) == {"a": "FAILED", "pretrain:x": "FAILED"}


def test_a_run_that_cannot_be_written_to_is_closed_another_time(journal: Journal) -> None:
    events = journal.path.with_suffix(".events.jsonl")
    kept = events.read_bytes()
    events.unlink()
    events.mkdir()
    assert not close(journal)
    events.rmdir()
    events.write_bytes(kept)
    assert close(Journal.read(journal.path))


def test_of_a_run_of_this_process_the_warden_tells_mlflow_and_nobody_waits(journal: Journal, tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").unlink()
    ours = Journal.begin(Run(**{**_fields(journal.run), "process": identity()}), tmp_path)
    ours.note("finished")
    assert not close(ours)
    assert not (tmp_path / "mlflow.db").exists()
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(UUID(ours.run.id)).state
    assert state is not None
    assert state.name == "Completed"


def test_two_at_once_close_a_run_once(journal: Journal, tmp_path: Path) -> None:
    code = "import sys, pathlib; from flows.reconcile import reconcile; print(reconcile(pathlib.Path(sys.argv[1])))"
    command = [sys.executable, "-W", "ignore", "-c", code, str(tmp_path)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    told = "".join(process.communicate(timeout=PATIENCE)[0] for process in both)
    assert told.count("had died and is closed") == 1
    assert not journal.path.exists()


def _fields(run: Run) -> dict[str, object]:
    return {name: getattr(run, name) for name in Run.__dataclass_fields__}
