"""What `pcd run` answers from the disk alone."""

import dataclasses
from pathlib import Path

import pytest

from flows.home import home, tracking_uri
from flows.profiles import load_profile
from flows.run import run_benchmark
from flows.run_record import RunRecord, latest_record, write_record
from tests.flows.finished_smoke import CELL, finish_benchmark


@pytest.fixture
def record(pcd_home: Path) -> RunRecord:
    record = dataclasses.replace(finish_benchmark()[1], tracking_uri=tracking_uri())
    (home() / "mlflow.db").touch()
    write_record(record)
    return record


def test_holes_that_a_failed_fresh_run_left_are_none_where_all_is_stored(record: RunRecord) -> None:
    failed = dataclasses.replace(record, finished=2.0, holes={f"finetune:{CELL}": "failed"})
    write_record(failed)
    assert latest_record("smoke") == failed
    assert run_benchmark(load_profile("smoke", [])) == record
    assert latest_record("smoke") == record


def test_a_run_in_an_mlflow_with_a_login_is_found_again_without_it(
    record: RunRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:hidden@127.0.0.1:9")
    elsewhere = dataclasses.replace(record, tracking_uri="http://127.0.0.1:9")
    write_record(elsewhere)
    assert run_benchmark(load_profile("smoke", [])) == elsewhere
