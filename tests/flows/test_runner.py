from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings
from rich.console import Console

from flows.journal import Journal, Run, describe_stages
from flows.planning.plan import make_plan
from flows.profiles import load_profile
from flows.progress import Lines
from flows.runner import Runner
from flows.store.store import Store


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
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
