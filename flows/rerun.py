"""The flow that runs a recorded benchmark again and judges whether it comes out the same."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, Literal

from prefect import flow
from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed, Failed
from pydantic import Field

from eval.verdict import RunVerdict, judge
from eval.verdict_figure import draw_verdict
from eval.verdict_table import message_of, write_verdict
from flows.benchmark import benchmark
from flows.home import home
from flows.logins import hide_logins
from flows.orchestration.flow_run import flow_run_id, page_tags, tell_prefect
from flows.planning.stages import is_cell
from flows.profiles import validate
from flows.run_record import RunRecord, finished_record, latest_record
from flows.run_results import cells_of
from flows.settings import Benchmark
from flows.store.store import open_store
from flows.tracking.verdict import record_verdict
from pcd.errors import PCDError, StageFailedError
from pcd.stage import write_text

__all__ = ["PAGE", "PartName", "Shared", "find_original", "rerun", "verdict_folder"]

PAGE: Final = "mlflow_page.txt"
"""In the verdict's folder: the address of its run in MLflow."""

Shared = Literal["teacher", "data", "pretrain"]
PartName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]


def _flow_run_name() -> str:
    return f"rerun {flow_run.parameters.get('run') or 'of the latest'}"


@flow(name="rerun", flow_run_name=_flow_run_name, validate_parameters=True)
def rerun(run: str | None = None, share: tuple[Shared, ...] = (), part: PartName | None = None) -> State[None]:
    """Run a finished benchmark again from its recorded settings, and judge each of its cells.

    Args:
        run: name or key of a finished benchmark; by default the one that was finished last.
        share: kinds of stages that are not computed again but taken from the whole store.
        part: of the store, where the rerun computes; by default a fresh one, which a retry goes on with.

    The state's message is the verdict. It is Failed if a cell was not reproduced, has fallen by more than the
    tolerance whatever has changed since, or came to no result this time.

    Raises:
        PCDError: there is no such benchmark, or it cannot be run any more.
        StageFailedError: the rerun failed and left nothing to judge.
    """
    hide_logins()
    original = find_original(run)
    settings = validate(original.settings, f"the recorded settings of {original.name}")
    part = part or f"{original.name}-{flow_run_id()[:8]}"
    again = _run_again(original, settings, part, share)
    verdict = judge(cells_of(original), cells_of(again), settings.noise_ap)

    folder = verdict_folder(part)
    folder.mkdir(parents=True, exist_ok=True)
    notes = [f"Rerun of {original.name} ({original.key[:12]}) in the part {part} of the store."]
    notes += _told_of_shared(again, share)
    write_verdict(folder, f"Rerun of {original.name}", verdict, notes)
    draw_verdict(verdict, folder / "verdict.png")
    _publish(verdict, folder, original, again)

    message = message_of(original.name, verdict)
    print(message, flush=True)
    return Failed(message=message) if verdict.is_failure else Completed(message=message)


def find_original(run: str | None) -> RunRecord:
    """Raises PCDError if there is none, or it was recorded without its settings."""
    original = finished_record(run)
    if not original.settings or not original.stages:
        raise PCDError(
            f"benchmark {original.name} was recorded without its settings; run it once more with this version"
        )
    if not any(is_cell(stage) for stage in original.stages):
        raise PCDError(f"benchmark {original.name} has no cells to judge; it pre-trains alone")
    return original


def verdict_folder(part: str) -> Path:
    """Where a rerun leaves verdict.json, .md, .html, .csv and .png."""
    return home() / "reruns" / part / "verdict"


def _run_again(original: RunRecord, settings: Benchmark, part: str, share: tuple[Shared, ...]) -> RunRecord:
    began = time.time()
    try:
        benchmark(settings, only=original.only, part=part, share=share, rerun_of=original.mlflow_run_id)
    except StageFailedError:  # cells that failed are holes of the verdict
        failed = latest_record(part)
        if failed is None or failed.finished < began:
            raise
    again = latest_record(part)
    assert again is not None  # the flow wrote it last
    return again


def _told_of_shared(again: RunRecord, share: Sequence[str]) -> list[str]:
    """Of a kind that was to be shared, the whole store may have lacked a stage."""
    own = open_store(again.part)
    taken, computed = set[str](), set[str]()
    for stage, key in again.stages.items():
        kind = stage.partition(":")[0]
        (computed if own.folder(kind, key).exists() else taken).add(kind)
    told = {
        "Taken from the original, not computed again": [kind for kind in share if kind in taken],
        "To be taken from the original, which the store no longer has whole, and so computed again": [
            kind for kind in share if kind in computed
        ],
    }
    return [f"{what}: {', '.join(kinds)}." for what, kinds in told.items() if kinds]


def _publish(verdict: RunVerdict, folder: Path, original: RunRecord, again: RunRecord) -> None:
    """Nothing of this changes the verdict, so that none of it may fail the flow."""
    title = f"Rerun of {original.name}"
    table = (folder / "verdict.md").read_text()
    tell_prefect(lambda: create_markdown_artifact(table, key="verdict", description=title))
    path = record_verdict(verdict, folder, original, again, page_tags())
    if path is None:
        print(f"MLflow did not take the verdict; it is in {folder}", flush=True)
        return
    page = "/".join(again.mlflow_page.split("/", 3)[:3]) + path
    write_text(folder / PAGE, page)
    tell_prefect(lambda: create_link_artifact(page, "verdict in MLflow", key="mlflow-verdict", description=title))
