"""A verdict that is renewed, and one whose MLflow does not answer; what it leaves at first is in test_schedules."""

from pathlib import Path

import pytest
from mlflow import MlflowClient

from eval.verdict import CellRun, RunVerdict, judge
from eval.verdict_figure import draw_verdict
from eval.verdict_table import write_verdict
from flows.run_record import RunRecord
from flows.tracking.verdict import record_verdict


def _cell(box_ap: float) -> CellRun:
    return CellRun(cell="pcd.fpn.seed0", metrics={"bbox/AP": box_ap, "segm/AP": 1.0}, weights_sha256="w")


def _draw(folder: Path, verdict: RunVerdict) -> None:
    write_verdict(folder, "Rerun", verdict, [])
    draw_verdict(verdict, folder / "verdict.png")


def _record(uri: str, run_id: str) -> RunRecord:
    page = "http://127.0.0.1:5000/#/experiments/1/runs/x"
    return RunRecord("demo", "key", "folder", uri, page, "", 0.0, mlflow_run_id=run_id)


@pytest.mark.filterwarnings(
    # MLflow 3.17 with SQLAlchemy 2.1: theirs.
    "ignore::sqlalchemy.exc.SADeprecationWarning",
    "ignore::ResourceWarning",
)
def test_a_verdict_that_is_renewed_shows_its_newest_figures_in_the_same_run(
    pcd_home: Path, tmp_path: Path, database: str, client: MlflowClient
) -> None:
    experiment = client.create_experiment("renewed", artifact_location=(tmp_path / "artifacts").as_uri())
    original, rerun = (_record(database, client.create_run(experiment).info.run_id) for _ in range(2))
    pages = []
    for box_ap in (5.0, 3.0):
        verdict = judge([_cell(3.0)], [_cell(box_ap)], 0.3)
        _draw(tmp_path, verdict)
        pages.append(record_verdict(verdict, tmp_path, original, rerun, {}))
    figures = client.get_run(client.get_run(rerun.mlflow_run_id).data.tags["pcd.verdict_run"]).data.metrics
    assert len(set(pages)) == 1
    told = {name.removeprefix("pcd.fpn.seed0/bbox/AP "): value for name, value in figures.items()}
    assert (told["original"], told["rerun"], told["difference"]) == (3, 3, 0)
    assert {name: value for name, value in told.items() if name.startswith("cells")} == {
        "cells": 1, "cells not reproduced": 0, "cells identical": 1,
    }  # fmt: skip


def test_a_verdict_does_not_fail_of_an_mlflow_that_is_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    verdict, record = judge([_cell(1.0)], [_cell(1.0)], 0.3), _record("http://127.0.0.1:9", "x")
    _draw(tmp_path, verdict)
    assert record_verdict(verdict, tmp_path, record, record, {}) is None
