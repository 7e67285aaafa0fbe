import json
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run as TrackedRun

from flows.journal import Journal, Run, describe_stages
from flows.planning.plan import Plan, make_plan
from flows.profiles import load_profile
from flows.tracking.publisher import Publisher, publish_all
from flows.tracking.tracker import Tracker
from pcd.errors import PCDError

pytestmark = pytest.mark.filterwarnings(
    # MLflow 3.17 with SQLAlchemy 2.1: theirs.
    "ignore::sqlalchemy.exc.SADeprecationWarning",
    "ignore::ResourceWarning",
)

PRETRAIN, CELL = "pretrain:pcd.seed0", "finetune:pcd.smoke_fpn.seed0"


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


Child = Callable[[str], TrackedRun]


@pytest.fixture
def child(client: MlflowClient, journal: Journal) -> Child:
    def find(stage: str) -> TrackedRun:
        (run,) = [run for run in _children(client, journal) if run.data.tags["pcd.stage_id"] == stage]
        return run

    return find


def _parent(client: MlflowClient, journal: Journal) -> TrackedRun:
    experiment = client.get_experiment_by_name("pcd-benchmarks")
    query = f"tags.`pcd.benchmark` = '{journal.run.key}'"
    (run,) = client.search_runs([experiment.experiment_id], query)
    return run


def _children(client: MlflowClient, journal: Journal) -> list[TrackedRun]:
    parent = _parent(client, journal)
    query = f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
    return list(client.search_runs([parent.info.experiment_id], query))


def _lines(*steps: int) -> str:
    return "".join(json.dumps({"step": s, "total": 9, "time": 1.0 + s, "loss": 1.0 / s}) + "\n" for s in steps)


def _finished(folder: Path, steps: int = 5) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "metrics.jsonl").write_text(_lines(*range(1, steps + 1)))
    metrics = {"bbox/AP": 12.5, "bbox/APl": None}
    result = {"metrics": metrics, "iterations": steps, "seconds": 2.5, "weights_sha256": "f00"}
    (folder / "result.json").write_text(json.dumps(result))
    (folder / "manifest.json").write_text(json.dumps({"command": ["python", "-m", "x"]}))
    return str(folder)


def _publish(journal: Journal) -> None:
    publish_all(Tracker(journal.run), journal)


def _steps(client: MlflowClient, run: TrackedRun, name: str = "loss") -> list[int]:
    return [metric.step for metric in client.get_metric_history(run.info.run_id, name)]


def test_a_stage_is_a_child_of_its_benchmark(journal: Journal, child: Child, client: MlflowClient) -> None:
    journal.note("running", PRETRAIN, folder="/nowhere")
    _publish(journal)
    run = child(PRETRAIN)
    assert (run.info.run_name, run.info.status, run.data.tags["pcd.arm"]) == (PRETRAIN, "RUNNING", "pcd")
    assert _parent(client, journal).info.status == "RUNNING"


def test_settings_become_params_by_their_dotted_names(journal: Journal, child: Child, client: MlflowClient) -> None:
    journal.note("running", PRETRAIN, folder="/nowhere")
    _publish(journal)
    assert child(PRETRAIN).data.params["pretrain.loss.temperature"] == "0.2"
    assert _parent(client, journal).data.params["pretrain.global_batch"] == "16"


def test_a_stage_that_goes_on_is_followed_step_by_step_and_no_step_is_sent_twice(
    journal: Journal, child: Child, client: MlflowClient, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    tracker = Tracker(journal.run)
    for steps in ((1, 2), (1, 2, 3)):
        (work / "metrics.jsonl").write_text(_lines(*steps))
        journal.note("running", PRETRAIN, folder=str(work))
        publish_all(tracker, journal)
    journal.note("done", PRETRAIN, folder=_finished(tmp_path / "done"))
    publish_all(tracker, journal)
    assert _steps(client, child(PRETRAIN)) == [1, 2, 3, 4, 5]
    assert child(PRETRAIN).info.status == "FINISHED"


def test_another_process_says_what_this_one_could_not_and_nothing_twice(
    journal: Journal, child: Child, client: MlflowClient, tmp_path: Path
) -> None:
    journal.note("running", PRETRAIN, folder=str(tmp_path / "work"))
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "metrics.jsonl").write_text(_lines(1, 2, 3))
    _publish(journal)
    first = child(PRETRAIN).info.run_id
    journal.note("done", PRETRAIN, folder=_finished(tmp_path / "done"))
    journal.note("finished")
    for _ in range(2):
        _publish(Journal.read(journal.path))
    assert child(PRETRAIN).info.run_id == first
    assert _steps(client, child(PRETRAIN)) == [1, 2, 3, 4, 5]
    assert {run.info.status for run in (child(PRETRAIN), _parent(client, journal))} == {"FINISHED"}


def test_a_line_that_is_being_written_waits_for_its_end(
    journal: Journal, child: Child, client: MlflowClient, tmp_path: Path
) -> None:
    (tmp_path / "metrics.jsonl").write_text(_lines(1, 2) + '{"step": 3, "tot')
    journal.note("running", PRETRAIN, folder=str(tmp_path))
    _publish(journal)
    assert _steps(client, child(PRETRAIN)) == [1, 2]


@pytest.mark.parametrize(("status", "told"), [("failed", "FAILED"), ("stopped", "KILLED")])
def test_a_stage_that_ended_badly_says_why_and_keeps_its_figures(
    journal: Journal, child: Child, client: MlflowClient, tmp_path: Path, status: str, told: str
) -> None:
    (tmp_path / "metrics.jsonl").write_text(_lines(1, 2))
    (tmp_path / "log.txt").write_text("the wheel came off")
    journal.note(status, PRETRAIN, folder=str(tmp_path), reason="out of memory")  # type: ignore[arg-type]
    _publish(journal)
    run = child(PRETRAIN)
    assert (run.info.status, run.data.tags["pcd.failure"]) == (told, "out of memory")
    assert _steps(client, run) == [1, 2]
    assert "log.txt" in {artifact.path for artifact in client.list_artifacts(run.info.run_id)}


def test_a_stage_that_is_tried_again_goes_on_in_its_run(
    journal: Journal, child: Child, client: MlflowClient, tmp_path: Path
) -> None:
    tracker = Tracker(journal.run)
    journal.note("failed", PRETRAIN, folder=str(tmp_path), reason="x")
    publish_all(tracker, journal)
    first = child(PRETRAIN).info.run_id
    journal.note("running", PRETRAIN, folder=str(tmp_path))
    publish_all(tracker, journal)
    assert (child(PRETRAIN).info.run_id, child(PRETRAIN).info.status) == (first, "RUNNING")


def test_a_skipped_stage_has_no_run(journal: Journal, client: MlflowClient) -> None:
    journal.note("skipped", CELL, reason="x")
    _publish(journal)
    assert _children(client, journal) == []


def test_a_stored_stage_that_mlflow_knows_is_left_alone(
    journal: Journal, child: Child, client: MlflowClient, tmp_path: Path
) -> None:
    journal.note("done", CELL, folder=_finished(tmp_path / "done"))
    _publish(journal)
    ended = child(CELL).info.end_time
    journal.note("cached", CELL, folder=str(tmp_path / "gone"))
    _publish(journal)
    assert child(CELL).info.end_time == ended


def test_a_stored_stage_of_another_benchmark_is_told_whole(
    journal: Journal, child: Child, client: MlflowClient, tmp_path: Path
) -> None:
    journal.note("cached", CELL, folder=_finished(tmp_path / "done"))
    _publish(journal)
    assert child(CELL).data.tags["pcd.cached"] == "true"
    assert _steps(client, child(CELL)) == [1, 2, 3, 4, 5]


def test_ap_is_a_plain_metric_and_an_absent_class_is_none(journal: Journal, child: Child, tmp_path: Path) -> None:
    journal.note("done", CELL, folder=_finished(tmp_path / "done"))
    _publish(journal)
    metrics = child(CELL).data.metrics
    assert metrics["bbox/AP"] == 12.5
    assert "bbox/APl" not in metrics


def test_a_stages_run_tells_its_command_and_the_hash_of_its_weights(
    journal: Journal, child: Child, tmp_path: Path
) -> None:
    journal.note("done", CELL, folder=_finished(tmp_path / "done"))
    _publish(journal)
    tags = child(CELL).data.tags
    assert (tags["pcd.command"], tags["pcd.finetune.weights_sha256"]) == ("python -m x", "f00")


def test_the_source_that_is_in_no_commit_is_kept(journal: Journal, client: MlflowClient, tmp_path: Path) -> None:
    _publish(journal)
    parent = _parent(client, journal)
    path = client.download_artifacts(parent.info.run_id, "source.diff", str(tmp_path))
    assert Path(path).read_text() == "+ a line"
    assert parent.data.tags["mlflow.source.git.commit"] == "abc"


def test_load_of_the_machine_is_shown_as_mlflows_own_system_metrics(
    journal: Journal, child: Child, client: MlflowClient, tmp_path: Path
) -> None:
    load = {"step": 1, "time": 5.0, "system/cpu_utilization_percentage": 50.0}
    (tmp_path / "system.jsonl").write_text(json.dumps(load) + "\n" + json.dumps(load | {"step": 2}) + "\n")
    journal.note("running", PRETRAIN, folder=str(tmp_path))
    _publish(journal)
    assert _steps(client, child(PRETRAIN), "system/cpu_utilization_percentage") == [1, 2]


def test_a_failed_benchmark_says_why_and_a_later_success_takes_it_back(journal: Journal, client: MlflowClient) -> None:
    journal.note("failed", reason="StageFailedError: out of memory")
    _publish(journal)
    run = _parent(client, journal)
    assert (run.info.status, run.data.tags["pcd.failure"]) == ("FAILED", "StageFailedError: out of memory")
    journal.note("finished")
    _publish(journal)
    assert "pcd.failure" not in _parent(client, journal).data.tags


def test_a_rerun_is_another_run_than_its_original(journal: Journal, client: MlflowClient) -> None:
    original = Tracker(journal.run).run_id
    rerun = replace(journal.run, tags={"pcd.part": "p1", "pcd.rerun_of": original})
    assert Tracker(rerun).run_id not in (original, Tracker(journal.run).run_id)
    assert Tracker(rerun).run_id == Tracker(rerun).run_id
    assert Tracker(journal.run).run_id == original


def test_what_mlflow_refuses_is_passed_over_and_the_rest_is_said(
    journal: Journal, child: Child, client: MlflowClient, tmp_path: Path
) -> None:
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "metrics.jsonl").write_text(json.dumps({"step": 1, "total": 1, "time": 1.0, "loss": 1, "a\nb": 1}) + "\n")
    journal.note("running", PRETRAIN, folder=str(bad))
    journal.note("done", CELL, folder=_finished(tmp_path / "done"))
    journal.note("finished")
    _publish(journal)
    assert child(CELL).info.status == "FINISHED"
    assert _parent(client, journal).info.status == "FINISHED"


def test_a_run_whose_tags_are_refused_is_told_all_the_rest(
    journal: Journal, child: Child, tmp_path: Path, client: MlflowClient
) -> None:
    journal.run.tags["a\nb"] = "no name for a tag"
    journal.note("done", CELL, folder=_finished(tmp_path / "done"))
    journal.note("finished")
    with Publisher(Tracker(journal.run), journal) as publisher:
        pass
    assert publisher.is_through
    assert journal.is_told("mlflow")
    assert {run.info.status for run in (child(CELL), _parent(client, journal))} == {"FINISHED"}


def test_overrides_are_one_param_and_other_names_lose_what_mlflow_refuses(
    journal: Journal, client: MlflowClient
) -> None:
    overrides = {"finetune:*.seed0": {"iterations": 2}, "finetune:?.seed0": {"iterations": 3}}
    settings = {**journal.run.settings, "overrides": overrides, "of *": 1}
    Tracker(replace(journal.run, settings=settings)).start_benchmark()
    params = _parent(client, journal).data.params
    assert (json.loads(params["overrides"]), params["of _"]) == (overrides, "1")


@pytest.mark.parametrize(("status", "told"), [("done", "FINISHED"), ("failed", "FAILED")])
def test_a_stage_that_is_refused_does_not_run_for_ever(
    journal: Journal, child: Child, tmp_path: Path, status: str, told: str
) -> None:
    folder = Path(_finished(tmp_path / "bad"))
    (folder / "metrics.jsonl").write_text('{"step": 1, "total": 1, "time": 1.0, "loss": 1, "a\\nb": 1}\n')
    journal.note(status, PRETRAIN, folder=str(folder))  # type: ignore[arg-type]
    _publish(journal)
    assert child(PRETRAIN).info.status == told


def test_lines_behind_a_torn_one_are_told(journal: Journal, child: Child, client: MlflowClient, tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(_lines(1) + '{"step": 2, "tot' + _lines(2, 3))
    journal.note("running", PRETRAIN, folder=str(tmp_path))
    _publish(journal)
    assert _steps(client, child(PRETRAIN)) == [1, 3]


def test_a_stage_whose_folder_is_gone_or_spoilt_hinders_no_other(
    journal: Journal, child: Child, client: MlflowClient, tmp_path: Path
) -> None:
    spoilt = Path(_finished(tmp_path / "spoilt"))
    (spoilt / "result.json").write_text('{"metrics"')
    journal.note("done", PRETRAIN, folder=str(spoilt))
    journal.note("cached", "data", folder=str(tmp_path / "gone"))
    journal.note("done", CELL, folder=_finished(tmp_path / "done"))
    journal.note("finished")
    _publish(journal)
    assert {run.info.status for run in _children(client, journal)} == {"FINISHED"}
    assert child(CELL).data.metrics["bbox/AP"] == 12.5
    assert _parent(client, journal).info.status == "FINISHED"


def test_what_cannot_be_read_just_now_is_told_another_time_and_the_rest_at_once(
    journal: Journal, child: Child, client: MlflowClient, tmp_path: Path
) -> None:
    folder = Path(_finished(tmp_path / "unreadable"))
    kept = (folder / "metrics.jsonl").rename(tmp_path / "kept")
    (folder / "metrics.jsonl").mkdir()
    journal.note("done", PRETRAIN, folder=str(folder))
    journal.note("done", CELL, folder=_finished(tmp_path / "done"))
    journal.note("finished")
    with pytest.raises(IsADirectoryError):
        _publish(journal)
    with Publisher(Tracker(journal.run), journal, patience=0.1) as publisher:
        pass
    publisher._thread.join(60)
    assert not publisher.is_through
    assert not journal.is_told("mlflow")
    assert child(CELL).info.status == "FINISHED"
    (folder / "metrics.jsonl").rmdir()
    kept.rename(folder / "metrics.jsonl")
    _publish(journal)
    assert _steps(client, child(PRETRAIN)) == [1, 2, 3, 4, 5]


def test_an_mlflow_that_hangs_does_not_hold_up_the_end(
    journal: Journal, child: Child, database: str, tmp_path: Path
) -> None:
    tracker = Tracker(journal.run)
    with closing(sqlite3.connect(database.removeprefix("sqlite:///"))) as hog:
        hog.execute("begin exclusive")
        with Publisher(tracker, journal, patience=0.2) as publisher:
            journal.note("done", CELL, folder=_finished(tmp_path / "done"))
            journal.note("finished")
        assert not publisher.is_through
        assert publisher._thread.is_alive()  # it hung, and was left alone
        hog.rollback()
    publisher._thread.join(60)
    assert not publisher._thread.is_alive()
    _publish(journal)
    assert child(CELL).info.status == "FINISHED"


def test_flows_of_one_benchmark_at_once_share_its_runs(journal: Journal, client: MlflowClient) -> None:
    with ThreadPoolExecutor(4) as flows:
        trackers = list(flows.map(Tracker, [journal.run] * 4))
        children = set(flows.map(lambda tracker: tracker.open_stage(CELL, cached=False), trackers))
    assert len({tracker.run_id for tracker in trackers}) == 1
    assert [run.info.run_id for run in _children(client, journal)] == list(children)


def test_a_stage_that_succeeds_at_last_takes_its_failure_back(journal: Journal, child: Child, tmp_path: Path) -> None:
    journal.note("failed", CELL, folder=str(tmp_path), reason="out of memory")
    _publish(journal)
    journal.note("done", CELL, folder=_finished(tmp_path / "done"))
    _publish(journal)
    assert "pcd.failure" not in child(CELL).data.tags


def test_the_thread_says_all_before_it_is_left(
    journal: Journal, child: Child, client: MlflowClient, tmp_path: Path
) -> None:
    with Publisher(Tracker(journal.run), journal) as publisher:
        journal.note("done", CELL, folder=_finished(tmp_path / "done"))
        journal.note("finished")
    assert publisher.is_through
    assert child(CELL).info.status == "FINISHED"


def test_an_mlflow_that_does_not_answer_is_named_before_anything_runs(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(PCDError, match=r"cannot use MLflow at http://127\.0\.0\.1:9 .*check MLFLOW_TRACKING_URI"):
        Tracker(replace(journal.run, tracking_uri="http://me:hidden@127.0.0.1:9"))
