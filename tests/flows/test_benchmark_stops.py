"""A flow that is stopped from outside, with everything but its stages."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from flows.benchmark import benchmark
from flows.interrupt import treat_sigterm_as_ctrl_c
from flows.journal import read_journals
from flows.profiles import load_profile

pytestmark = [
    pytest.mark.slow,  # a real server is started
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning", "ignore::ResourceWarning"),
]


def test_a_flow_that_gets_sigterm_was_stopped_and_did_not_fail(
    pcd_home: Path, prefect_api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wait_for_stages(*_: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)  # which Prefect turns into an exception of its own, and then sends again
        raise AssertionError("nobody heard it")

    monkeypatch.setattr("flows.benchmark.bring_all_about", wait_for_stages)
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGHUP)
    treat_sigterm_as_ctrl_c()
    try:
        with pytest.raises(KeyboardInterrupt):
            benchmark(load_profile("smoke"))
    finally:
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGHUP, before[1])
    (journal,) = read_journals(pcd_home)
    assert journal.outcome is not None
    assert journal.outcome.status == "stopped"
    client = MlflowClient(journal.run.tracking_uri)
    experiment = client.get_experiment_by_name("pcd-benchmarks")
    assert [run.info.status for run in client.search_runs([experiment.experiment_id])] == ["KILLED"]
