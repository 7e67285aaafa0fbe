import subprocess
import sys
from pathlib import Path
from typing import get_args
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.states import Completed, Running

from flows.journal import Journal, Outcome, Run
from flows.orchestration.settle import settle
from tests.patience import PATIENCE
from tests.servers import PrefectServer

pytestmark = pytest.mark.slow  # a real server is started

_FLOW = """
import os, sys, time
from prefect.client.orchestration import get_client
from prefect import flow, task

@task(task_run_name="{name}")
def stage(name):
    if name == "lost":
        os._exit(9)

@flow
def dies():
    stage("data")
    print(__import__("prefect").runtime.flow_run.id, flush=True)
    with get_client(sync_client=True) as client:  # the first task's events have arrived
        while "data" not in {run.name for run in client.read_task_runs()}:
            time.sleep(0.05)
    stage("lost")

dies()
"""


def _running(api: str) -> str:
    """A flow run that says "Running" and has no process."""
    with get_client(sync_client=True) as client:
        flow_id = client.create_flow_from_name("orphan")
        response = client._client.post(
            "/flow_runs/", json={"flow_id": str(flow_id), "state": {"type": "RUNNING", "name": "Running"}}
        )
        response.raise_for_status()
        return str(response.json()["id"])


def _journal(flow_run_id: str, folder: Path) -> Journal:
    run = Run(
        id=flow_run_id, name="a", key="k", process="1:1", started=1.0, settings={}, stages={}, environment={},
        tracking_uri="", artifacts="",
    )  # fmt: skip
    return Journal.begin(run, folder)


def _read(flow_run_id: str) -> FlowRun:
    with get_client(sync_client=True) as client:
        return client.read_flow_run(UUID(flow_run_id))


@pytest.mark.parametrize(
    ("outcome", "told"),
    [("finished", "Completed"), ("failed", "Failed"), ("stopped", "Cancelled"), ("crashed", "Crashed")],
)
def test_a_run_without_a_process_gets_the_state_that_its_journal_tells(
    prefect_api: str, tmp_path: Path, outcome: Outcome, told: str
) -> None:
    assert outcome in get_args(Outcome)
    journal = _journal(_running(prefect_api), tmp_path)
    journal.note(outcome, reason="why")
    assert settle(journal, prefect_api)
    state = _read(journal.run.id).state
    assert state is not None
    assert state.name == told


def test_a_state_that_is_final_is_left_alone(prefect_api: str, tmp_path: Path) -> None:
    journal = _journal(_running(prefect_api), tmp_path)
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(UUID(journal.run.id), Completed(), force=True)
    journal.note("crashed", reason="why")
    assert settle(journal, prefect_api)
    state = _read(journal.run.id).state
    assert state is not None
    assert state.name == "Completed"


def test_tasks_of_a_flow_that_was_killed_are_settled_by_their_stages(
    prefect_api: str, tmp_path: Path, prefect_server: PrefectServer
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _FLOW], env=prefect_server.environment, capture_output=True, text=True, check=False,
        timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 9, done.stderr
    journal = _journal(done.stdout.split()[0], tmp_path)
    with get_client(sync_client=True) as client:  # as if the event of its end had not arrived before the flow died
        before = {task.name: task for task in client.read_task_runs()}
        client.set_task_run_state(before["data"].id, Running(), force=True)
    journal.note("done", "data")
    journal.note("crashed")
    assert settle(journal, prefect_api)
    with get_client(sync_client=True) as client:
        states = {task.name: task.state.name for task in client.read_task_runs() if task.state}
    assert states["data"] == "Completed"
    assert set(states.values()) <= {"Completed", "Crashed"}


def test_a_run_that_the_server_does_not_know_needs_no_settling(prefect_api: str, tmp_path: Path) -> None:
    assert settle(_journal("00000000-0000-4000-8000-000000000000", tmp_path), prefect_api)


def test_a_server_that_does_not_answer_leaves_it_for_another_time(tmp_path: Path) -> None:
    journal = _journal("00000000-0000-4000-8000-000000000000", tmp_path)
    journal.note("finished")
    assert not settle(journal, "http://127.0.0.1:9/api")


def test_an_address_that_holds_a_login_is_told_without_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    journal = _journal("00000000-0000-0000-0000-000000000001", tmp_path)
    journal.note("finished")
    assert not settle(journal, "http://me:hidden@127.0.0.1:9/api")
    assert "Prefect at http://127.0.0.1:9/api does not take the end" in "".join(caplog.messages)
    assert "hidden" not in "".join(caplog.messages)
