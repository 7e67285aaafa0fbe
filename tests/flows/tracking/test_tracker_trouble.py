"""What MLflow refuses, cannot take now, or what lies spoilt on the disk: the rest is told."""

import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient

from flows.journal import Journal
from flows.tracking.publisher import Publisher
from flows.tracking.tracker import Tracker
from pcd.errors import PCDError
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
from tests.patience import PATIENCE

pytestmark = pytest.mark.filterwarnings(
    # MLflow 3.17 with SQLAlchemy 2.1: theirs.
    "ignore::sqlalchemy.exc.SADeprecationWarning",
    "ignore::ResourceWarning",
)


def test_what_mlflow_refuses_is_passed_over_and_the_rest_is_said(
    journal: Journal, child: Child, client: MlflowClient, tmp_path: Path
) -> None:
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "metrics.jsonl").write_text(json.dumps({"step": 1, "total": 1, "time": 1.0, "loss": 1, "a\nb": 1}) + "\n")
    journal.note("running", PRETRAIN, folder=str(bad))
    journal.note("done", CELL, folder=finished_stage(tmp_path / "done"))
    journal.note("finished")
    publish(journal)
    assert child(CELL).info.status == "FINISHED"
    assert parent_of(client, journal).info.status == "FINISHED"


def test_a_run_whose_tags_are_refused_is_told_all_the_rest(
    journal: Journal, child: Child, tmp_path: Path, client: MlflowClient
) -> None:
    journal.run.tags["a\nb"] = "no name for a tag"
    journal.note("done", CELL, folder=finished_stage(tmp_path / "done"))
    journal.note("finished")
    with Publisher(Tracker(journal.run), journal) as publisher:
        pass
    assert publisher.is_through
    assert journal.is_told("mlflow")
    assert {run.info.status for run in (child(CELL), parent_of(client, journal))} == {"FINISHED"}


def test_overrides_are_one_param_and_other_names_lose_what_mlflow_refuses(
    journal: Journal, client: MlflowClient
) -> None:
    overrides = {"finetune:*.seed0": {"iterations": 2}, "finetune:?.seed0": {"iterations": 3}}
    settings = {**journal.run.settings, "overrides": overrides, "of *": 1}
    Tracker(replace(journal.run, settings=settings)).start_benchmark()
    params = parent_of(client, journal).data.params
    assert (json.loads(params["overrides"]), params["of _"]) == (overrides, "1")


@pytest.mark.parametrize(("status", "told"), [("done", "FINISHED"), ("failed", "FAILED")])
def test_a_stage_that_is_refused_does_not_run_for_ever(
    journal: Journal, child: Child, tmp_path: Path, status: str, told: str
) -> None:
    folder = Path(finished_stage(tmp_path / "bad"))
    (folder / "metrics.jsonl").write_text('{"step": 1, "total": 1, "time": 1.0, "loss": 1, "a\\nb": 1}\n')
    journal.note(status, PRETRAIN, folder=str(folder))  # type: ignore[arg-type]
    publish(journal)
    assert child(PRETRAIN).info.status == told


def test_lines_behind_a_torn_one_are_told(journal: Journal, child: Child, client: MlflowClient, tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(metric_lines(1) + '{"step": 2, "tot' + metric_lines(2, 3))
    journal.note("running", PRETRAIN, folder=str(tmp_path))
    publish(journal)
    assert steps_of(client, child(PRETRAIN)) == [1, 3]


def test_a_stage_whose_folder_is_gone_or_spoilt_hinders_no_other(
    journal: Journal, child: Child, client: MlflowClient, tmp_path: Path
) -> None:
    spoilt = Path(finished_stage(tmp_path / "spoilt"))
    (spoilt / "result.json").write_text('{"metrics"')
    journal.note("done", PRETRAIN, folder=str(spoilt))
    journal.note("cached", "data", folder=str(tmp_path / "gone"))
    journal.note("done", CELL, folder=finished_stage(tmp_path / "done"))
    journal.note("finished")
    publish(journal)
    assert {run.info.status for run in children_of(client, journal)} == {"FINISHED"}
    assert child(CELL).data.metrics["bbox/AP"] == 12.5
    assert parent_of(client, journal).info.status == "FINISHED"


def test_what_cannot_be_read_just_now_is_told_another_time_and_the_rest_at_once(
    journal: Journal, child: Child, client: MlflowClient, tmp_path: Path
) -> None:
    folder = Path(finished_stage(tmp_path / "unreadable"))
    kept = (folder / "metrics.jsonl").rename(tmp_path / "kept")
    (folder / "metrics.jsonl").mkdir()
    journal.note("done", PRETRAIN, folder=str(folder))
    journal.note("done", CELL, folder=finished_stage(tmp_path / "done"))
    journal.note("finished")
    with pytest.raises(IsADirectoryError):
        publish(journal)
    with Publisher(Tracker(journal.run), journal, patience=0.1) as publisher:
        pass
    publisher._thread.join(PATIENCE)
    assert not publisher.is_through
    assert not journal.is_told("mlflow")
    assert child(CELL).info.status == "FINISHED"
    (folder / "metrics.jsonl").rmdir()
    kept.rename(folder / "metrics.jsonl")
    publish(journal)
    assert steps_of(client, child(PRETRAIN)) == [1, 2, 3, 4, 5]


def test_an_mlflow_that_hangs_does_not_hold_up_the_end(
    journal: Journal, child: Child, database: str, tmp_path: Path
) -> None:
    tracker = Tracker(journal.run)
    with closing(sqlite3.connect(database.removeprefix("sqlite:///"))) as hog:
        hog.execute("begin exclusive")
        with Publisher(tracker, journal, patience=0.2) as publisher:
            journal.note("done", CELL, folder=finished_stage(tmp_path / "done"))
            journal.note("finished")
        assert not publisher.is_through
        assert publisher._thread.is_alive()  # it hung, and was left alone
        hog.rollback()
    publisher._thread.join(PATIENCE)
    assert not publisher._thread.is_alive()
    publish(journal)
    assert child(CELL).info.status == "FINISHED"


def test_an_mlflow_that_does_not_answer_is_named_before_anything_runs(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(PCDError, match=r"cannot use MLflow at http://127\.0\.0\.1:9 .*check MLFLOW_TRACKING_URI"):
        Tracker(replace(journal.run, tracking_uri="http://me:hidden@127.0.0.1:9"))
