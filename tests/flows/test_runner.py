import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings
from rich.console import Console

from flows.environment import processor
from flows.journal import Journal, Run, describe_stages
from flows.planning.hardware import hardware_here
from flows.planning.measurements import read_measurements
from flows.planning.plan import make_plan
from flows.profiles import load_profile
from flows.progress import Lines
from flows.runner import Runner
from flows.store.store import Store
from pcd.errors import PCDError


@pytest.fixture
def runner(pcd_home: Path, tmp_path: Path) -> Iterator[Runner]:
    plan = make_plan(load_profile("smoke"))
    run = Run(
        id="flow-run", name="smoke", key="k", process="1:1", started=1.0, settings={}, stages=describe_stages(plan),
        environment={}, tracking_uri="", artifacts="",
    )  # fmt: skip
    journal, reporter = Journal.begin(run, tmp_path), Lines(Console(quiet=True))
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):  # slots are taken without a server
        yield Runner(plan, Store(tmp_path / "store"), {}, journal, reporter, {}, set())


def test_a_stage_whose_result_cannot_be_stored_has_failed(runner: Runner) -> None:
    stage = runner.plan.stages[0]
    work = runner.store.work_folder(stage)
    (work / "result.json").write_text("{}")  # it ended while its supervisor was being killed
    (work / "manifest.json").mkdir()
    with pytest.raises(IsADirectoryError):
        runner.bring_about(stage)
    event = runner.journal.stages[stage.id]
    assert (event.status, event.folder) == ("failed", str(work))


def test_a_stage_whose_source_changed_since_the_plan_is_not_computed_under_the_old_key(runner: Runner) -> None:
    stage = runner.plan.stages[0]
    name = next(iter(stage.parts["sources"]))
    edited = replace(stage, parts=stage.parts | {"sources": stage.parts["sources"] | {name: "0" * 64}})
    with pytest.raises(PCDError, match=f"^{name} changed since this run was planned; run it again"):
        runner.bring_about(edited)
    assert not (runner.store.work_folder(stage) / "log.txt").exists()


def test_a_stage_that_ran_is_measured_as_one_of_the_devices_that_it_had(runner: Runner) -> None:
    stage = runner.plan.stages[0]
    runner.environment["processor"] = processor()
    before = time.time()
    runner.bring_about(stage)
    (measured,) = read_measurements()
    assert measured.hardware == hardware_here(runner.plan.benchmark.runtime, distributed=False).name
    assert measured.other_seconds is not None
    result = json.loads((runner.folders[stage.id] / "result.json").read_text())
    assert result["seconds"] < measured.other_seconds <= time.time() - before
