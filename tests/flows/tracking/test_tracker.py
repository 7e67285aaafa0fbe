import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient

from flows.home import report_path
from flows.journal import Journal
from flows.tracking.publisher import Publisher, publish_all
from flows.tracking.tracker import Tracker
from tests.flows.tracking.tracked_runs import (
    CELL,
    PRETRAIN,
    Child,
    children_of,
    finished_stage,
    metric_lines,
    parent_of,
    publish,
    steps_of,
)

pytestmark = pytest.mark.filterwarnings(
    # MLflow 3.17 with SQLAlchemy 2.1: theirs.
    "ignore::sqlalchemy.exc.SADeprecationWarning",
    "ignore::ResourceWarning",
)


def test_a_stage_is_a_child_of_its_benchmark(journal: Journal, child: Child, client: MlflowClient) -> None:
    journal.note("running", PRETRAIN, folder="/nowhere")
    publish(journal)
    run = child(PRETRAIN)
    assert (run.info.run_name, run.info.status, run.data.tags["pcd.arm"]) == (PRETRAIN, "RUNNING", "pcd")
    assert parent_of(client, journal).info.status == "RUNNING"


def test_settings_become_params_by_their_dotted_names(journal: Journal, child: Child, client: MlflowClient) -> None:
    journal.note("running", PRETRAIN, folder="/nowhere")
    publish(journal)
    assert child(PRETRAIN).data.params["pretrain.loss.temperature"] == "0.2"
    assert parent_of(client, journal).data.params["pretrain.global_batch"] == "16"


def test_a_stage_that_goes_on_is_followed_step_by_step_and_no_step_is_sent_twice(
    journal: Journal, child: Child, client: MlflowClient, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    tracker = Tracker(journal.run)
    for steps in ((1, 2), (1, 2, 3)):
        (work / "metrics.jsonl").write_text(metric_lines(*steps))
        journal.note("running", PRETRAIN, folder=str(work))
        publish_all(tracker, journal)
    journal.note("done", PRETRAIN, folder=finished_stage(tmp_path / "done"))
    publish_all(tracker, journal)
    assert steps_of(client, child(PRETRAIN)) == [1, 2, 3, 4, 5]
    assert child(PRETRAIN).info.status == "FINISHED"


def test_another_process_says_what_this_one_could_not_and_nothing_twice(
    journal: Journal, child: Child, client: MlflowClient, tmp_path: Path
) -> None:
    journal.note("running", PRETRAIN, folder=str(tmp_path / "work"))
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "metrics.jsonl").write_text(metric_lines(1, 2, 3))
    publish(journal)
    first = child(PRETRAIN).info.run_id
    journal.note("done", PRETRAIN, folder=finished_stage(tmp_path / "done"))
    journal.note("finished")
    for _ in range(2):
        publish(Journal.read(journal.path))
    assert child(PRETRAIN).info.run_id == first
    assert steps_of(client, child(PRETRAIN)) == [1, 2, 3, 4, 5]
    assert {run.info.status for run in (child(PRETRAIN), parent_of(client, journal))} == {"FINISHED"}


def test_a_line_that_is_being_written_waits_for_its_end(
    journal: Journal, child: Child, client: MlflowClient, tmp_path: Path
) -> None:
    (tmp_path / "metrics.jsonl").write_text(metric_lines(1, 2) + '{"step": 3, "tot')
    journal.note("running", PRETRAIN, folder=str(tmp_path))
    publish(journal)
    assert steps_of(client, child(PRETRAIN)) == [1, 2]


@pytest.mark.parametrize(("status", "told"), [("failed", "FAILED"), ("stopped", "KILLED")])
def test_a_stage_that_ended_badly_says_why_and_keeps_its_figures(
    journal: Journal, child: Child, client: MlflowClient, tmp_path: Path, status: str, told: str
) -> None:
    (tmp_path / "metrics.jsonl").write_text(metric_lines(1, 2))
    (tmp_path / "log.txt").write_text("the wheel came off")
    journal.note(status, PRETRAIN, folder=str(tmp_path), reason="out of memory")  # type: ignore[arg-type]
    publish(journal)
    run = child(PRETRAIN)
    assert (run.info.status, run.data.tags["pcd.failure"]) == (told, "out of memory")
    assert steps_of(client, run) == [1, 2]
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
    publish(journal)
    assert children_of(client, journal) == []


def test_a_stored_stage_that_mlflow_knows_is_left_alone(
    journal: Journal, child: Child, client: MlflowClient, tmp_path: Path
) -> None:
    journal.note("done", CELL, folder=finished_stage(tmp_path / "done"))
    publish(journal)
    ended = child(CELL).info.end_time
    journal.note("cached", CELL, folder=str(tmp_path / "gone"))
    publish(journal)
    assert child(CELL).info.end_time == ended


def test_a_stored_stage_of_another_benchmark_is_told_whole(
    journal: Journal, child: Child, client: MlflowClient, tmp_path: Path
) -> None:
    journal.note("cached", CELL, folder=finished_stage(tmp_path / "done"))
    publish(journal)
    assert child(CELL).data.tags["pcd.cached"] == "true"
    assert steps_of(client, child(CELL)) == [1, 2, 3, 4, 5]


def test_ap_is_a_plain_metric_and_an_absent_class_is_none(journal: Journal, child: Child, tmp_path: Path) -> None:
    journal.note("done", CELL, folder=finished_stage(tmp_path / "done"))
    publish(journal)
    metrics = child(CELL).data.metrics
    assert metrics["bbox/AP"] == 12.5
    assert "bbox/APl" not in metrics


def test_a_stages_run_tells_its_command_and_the_hash_of_its_weights(
    journal: Journal, child: Child, tmp_path: Path
) -> None:
    journal.note("done", CELL, folder=finished_stage(tmp_path / "done"))
    publish(journal)
    tags = child(CELL).data.tags
    assert (tags["pcd.command"], tags["pcd.finetune.weights_sha256"]) == ("python -m x 'a folder/spec.json'", "f00")


def test_the_source_that_is_in_no_commit_is_kept(journal: Journal, client: MlflowClient, tmp_path: Path) -> None:
    publish(journal)
    parent = parent_of(client, journal)
    path = client.download_artifacts(parent.info.run_id, "source.diff", str(tmp_path))
    assert Path(path).read_text() == "+ a line"
    assert parent.data.tags["mlflow.source.git.commit"] == "abc"


def test_load_of_the_machine_is_shown_as_mlflows_own_system_metrics(
    journal: Journal, child: Child, client: MlflowClient, tmp_path: Path
) -> None:
    load = {"step": 1, "time": 5.0, "system/cpu_utilization_percentage": 50.0}
    (tmp_path / "system.jsonl").write_text(json.dumps(load) + "\n" + json.dumps(load | {"step": 2}) + "\n")
    journal.note("running", PRETRAIN, folder=str(tmp_path))
    publish(journal)
    assert steps_of(client, child(PRETRAIN), "system/cpu_utilization_percentage") == [1, 2]


def test_a_failed_benchmark_says_why_and_a_later_success_takes_it_back(journal: Journal, client: MlflowClient) -> None:
    journal.note("failed", reason="StageFailedError: out of memory")
    publish(journal)
    run = parent_of(client, journal)
    assert (run.info.status, run.data.tags["pcd.failure"]) == ("FAILED", "StageFailedError: out of memory")
    journal.note("finished")
    publish(journal)
    assert "pcd.failure" not in parent_of(client, journal).data.tags


def test_a_rerun_is_another_run_than_its_original(journal: Journal, client: MlflowClient) -> None:
    original = Tracker(journal.run).run_id
    rerun = replace(journal.run, tags={"pcd.part": "p1", "pcd.rerun_of": original})
    assert Tracker(rerun).run_id not in (original, Tracker(journal.run).run_id)
    assert Tracker(rerun).run_id == Tracker(rerun).run_id
    assert Tracker(journal.run).run_id == original


def test_flows_of_one_benchmark_at_once_share_its_runs(journal: Journal, client: MlflowClient) -> None:
    with ThreadPoolExecutor(4) as flows:
        trackers = list(flows.map(Tracker, [journal.run] * 4))
        children = set(flows.map(lambda tracker: tracker.open_stage(CELL, cached=False), trackers))
    assert len({tracker.run_id for tracker in trackers}) == 1
    assert [run.info.run_id for run in children_of(client, journal)] == list(children)


def test_a_stage_that_succeeds_at_last_takes_its_failure_back(journal: Journal, child: Child, tmp_path: Path) -> None:
    journal.note("failed", CELL, folder=str(tmp_path), reason="out of memory")
    publish(journal)
    journal.note("done", CELL, folder=finished_stage(tmp_path / "done"))
    publish(journal)
    assert "pcd.failure" not in child(CELL).data.tags


def test_the_thread_says_all_before_it_is_left(
    journal: Journal, child: Child, client: MlflowClient, tmp_path: Path
) -> None:
    with Publisher(Tracker(journal.run), journal) as publisher:
        journal.note("done", CELL, folder=finished_stage(tmp_path / "done"))
        journal.note("finished")
    assert publisher.is_through
    assert child(CELL).info.status == "FINISHED"


def test_an_arms_figures_by_several_protocols_stand_apart(
    journal: Journal, client: MlflowClient, tmp_path: Path
) -> None:
    rows = [{"arm": "pcd", "protocol": name, "bbox/AP mean": ap} for name, ap in (("fpn_1x", 33.0), ("c4_1x", 31.0))]
    (tmp_path / "ap_table.json").write_text(json.dumps({"title": "t", "arms": rows, "notes": []}))
    for name in ("ap_summary.md", "ap_table.md"):
        (tmp_path / name).write_text("| arm |\n")
    Tracker(journal.run).log_table(tmp_path)
    metrics = parent_of(client, journal).data.metrics
    assert metrics == {"pcd/fpn_1x/bbox/AP": 33.0, "pcd/c4_1x/bbox/AP": 31.0}


def test_the_benchmarks_report_is_sent_if_there_is_one(
    journal: Journal, client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PCD_HOME", str(tmp_path / "reported"))
    publish(journal)
    run_id = parent_of(client, journal).info.run_id
    journal.note("finished")
    publish(journal)
    assert "report.html" not in {artifact.path for artifact in client.list_artifacts(run_id)}
    path = report_path(journal.run.name, journal.run.key)
    path.parent.mkdir(parents=True)
    path.write_text("<h1>the report</h1>")
    publish(journal)
    sent = client.download_artifacts(run_id, "report.html", str(tmp_path))
    assert Path(sent).read_text() == "<h1>the report</h1>"
