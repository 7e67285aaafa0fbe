"""A verdict whose MLflow does not answer; what it leaves in one that does is in test_schedules."""

from pathlib import Path

import pytest

from eval.verdict import CellRun, judge
from eval.verdict_figure import draw_verdict
from eval.verdict_table import write_verdict
from flows.run_record import RunRecord
from flows.tracking.verdict import record_verdict


def test_a_verdict_does_not_fail_of_an_mlflow_that_is_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    cell = CellRun(cell="pcd.fpn.seed0", metrics={"bbox/AP": 1.0, "segm/AP": 1.0}, weights_sha256="w")
    verdict, page = judge([cell], [cell], 0.3), "http://127.0.0.1:5000/#/experiments/1/runs/x"
    write_verdict(tmp_path, "Rerun", verdict, [])
    draw_verdict(verdict, tmp_path / "verdict.png")
    record = RunRecord("demo", "key", "folder", "http://127.0.0.1:9", page, "", 0.0, mlflow_run_id="x")
    assert record_verdict(verdict, tmp_path, record, record, {}) is None
