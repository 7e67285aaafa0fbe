"""The flow that turns a benchmark's settings into its AP table."""

import logging
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from prefect import Task, flow
from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.futures import PrefectFuture
from prefect.states import Completed
from rich.console import Console

from flows.environment import brief, describe_environment
from flows.failures import one_of, told, why_missing
from flows.home import MLFLOW_PORT, home, tracking_uri
from flows.journal import Journal, Run, describe_stages
from flows.left_out import find_left_out
from flows.logins import hide_logins, without_login
from flows.orchestration.flow_run import flow_run_id, page_tags, tell_prefect
from flows.orchestration.prefect_server import api_address, own_server
from flows.orchestration.slots import free_slots
from flows.planning.partial_table import partial_aggregate
from flows.planning.plan import make_plan
from flows.planning.selection import select
from flows.planning.stages import Plan, Stage, StageKind
from flows.progress import describe_plan, make_reporter
from flows.reconcile import reconcile
from flows.report import write_benchmark_report
from flows.run_record import RunRecord, write_record
from flows.runner import NoProgressError, Runner
from flows.scheduler import STOPS, bring_all_about
from flows.settings import Benchmark
from flows.store.store import open_store
from flows.supervision.devices import are_all_free
from flows.supervision.processes import identity
from flows.supervision.warden import start_warden
from flows.tracking.publisher import Publisher
from flows.tracking.tracker import Tracker
from pcd.errors import PCDError, StageFailedError, StageStoppedError

__all__ = ["benchmark"]

_log = logging.getLogger(__name__)


def _worth_another_try(_task: Any, _run: TaskRun, state: State[Any]) -> bool:
    """Not what the user has to mend, not what was stopped, and not what failed twice at the same place."""
    error = state.result(raise_on_failure=False)
    return not isinstance(error, PCDError | StageStoppedError | NoProgressError)


# The store decides what has to run, and a stage found there ends in the state "Cached"; Prefect keeps no results.


def _bring_about(runner: Runner, stage: Stage) -> State[None]:
    was_stored = runner.bring_about(stage)
    return Completed(name="Cached" if was_stored else "Completed", message=str(runner.folders[stage.id]))


def _stage_task(name: str, description: str) -> Task[[Runner, Stage], State[None]]:
    return Task(
        _bring_about,
        name=name,
        description=description,
        task_run_name="{stage.id}",
        cache_policy=NO_CACHE,
        retry_condition_fn=_worth_another_try,
    )


_TASKS: Final[dict[StageKind, Task[[Runner, Stage], State[None]]]] = {
    "teacher": _stage_task("fetch_teacher", "Download, verify and load the teacher's checkpoint."),
    "data": _stage_task("prepare_data", "Draw the shapes set, or check the user's own."),
    "pretrain": _stage_task("pretrain_student", "Pre-training; a retry goes on from the last checkpoint."),
    "watch": _stage_task("watch_student", "What the student is worth while it is pre-trained, snapshot by snapshot."),
    "backbone": _stage_task("bring_backbone", "Take a backbone that is made elsewhere."),
    "finetune": _stage_task("finetune_detector", "Mask R-CNN and its AP; a retry goes on from the last checkpoint."),
    "features": _stage_task("compute_features", "Every labelled image once through a frozen backbone."),
    "probe": _stage_task("probe_features", "A linear, nearest-neighbour or low-shot classifier of frozen features."),
    "aggregate": _stage_task("aggregate_results", "The AP table and its figures."),
}


@flow(name="benchmark", flow_run_name="{settings.name}", validate_parameters=True)
def benchmark(
    settings: Benchmark, only: tuple[str, ...] = (), from_stage: str | None = None, fresh: bool = False,
    part: str | None = None, share: tuple[str, ...] = (), rerun_of: str | None = None,
) -> str:  # fmt: skip
    """Run what the store does not have. Returns the folder with the AP table.

    Args:
        settings: arms x protocols x seeds, and how to run them.
        only: patterns of cells, such as "pcd.*.seed0"; the others are named holes of the table.
        from_stage: this stage and all behind it are computed anew.
        fresh: all stages are.
        part: a part of the store for this run alone; what it shares with the whole store is named in `share`.
        share: kinds of stages taken from the whole store: teacher, data, pretrain, features, finetune, probe.
        rerun_of: MLflow's id of the run that this one repeats.

    Raises:
        PCDError: the user has to mend something, and nothing was measured.
        StageFailedError: cells failed; the table, if there is one, names them as holes.
    """
    hide_logins()
    whole = make_plan(settings)
    if whole.missing:
        raise PCDError("; ".join(whole.missing))
    plan, anew = select(whole, only=only, from_stage=from_stage, fresh=fresh)
    for line in reconcile(home()):
        print(line, flush=True)
    if are_all_free():
        tell_prefect(free_slots)
    journal, tracker = _begin(whole, part, rerun_of)
    with start_warden(home(), journal.path), Publisher(tracker, journal) as publisher:
        try:
            with make_reporter(Console(file=sys.stdout)) as reporter:
                store = open_store(part)
                store.note = reporter.note
                stored = sum(store.state(stage).name in ("cached", "remote") for stage in plan.stages)
                reporter.note(describe_plan(plan, stored))
                shared = {kind: open_store() for kind in share}
                runner = Runner(plan, store, shared, journal, reporter, brief(journal.run.environment), set(anew))
                failures = bring_all_about(plan, runner, lambda stage: _submit(runner, stage))
                folder, holes = _aggregate_what_there_is(whole, plan, runner, failures)
            record = _record(whole, runner, folder, holes, tracker, part)
            write_record(record)
            _write_report(record)
            _show_in_prefect(whole, folder)
            journal.note(
                "failed" if failures else "finished", folder=str(folder) if whole.has_table else None,
                reason=told(failures) if failures else None,
            )  # fmt: skip
        except BaseException as error:
            was_stopped = isinstance(error, STOPS)
            with suppress(OSError):  # on a full disk the error itself says more; whoever closes the run notes it
                journal.note("stopped" if was_stopped else "failed", reason=f"{type(error).__name__}: {error}")
            raise
    if not publisher.is_through:
        print("MLflow has not taken all yet; it is kept, and sent behind this run or by the next", flush=True)
    if failures:
        raise StageFailedError(told(failures))
    return str(folder)


# The parts, in the order of time.


def _begin(plan: Plan, part: str | None, rerun_of: str | None) -> tuple[Journal, Tracker]:
    """Write down that this run is under way, and open its page in MLflow. Raises PCDError if MLflow is not there."""
    tags = {
        **page_tags(),
        **({"pcd.part": part} if part else {}),
        **({"pcd.rerun_of": rerun_of} if rerun_of else {}),
    }
    run = Run(
        id=flow_run_id(), name=plan.benchmark.name, key=plan.key, process=identity(), started=time.time(),
        settings=plan.benchmark.model_dump(mode="json"), stages=describe_stages(plan),
        environment=describe_environment(), tracking_uri=tracking_uri(), artifacts=str(home() / "mlartifacts"),
        tags=tags, store_part=part, prefect_api=api_address(), server=own_server(),
    )  # fmt: skip
    journal = Journal.begin(run, home())  # first: whoever finds it closes what a killed process opened in MLflow
    try:
        tracker = Tracker(run)
    except PCDError:
        journal.forget()
        raise
    page = _mlflow_page(tracker)
    tell_prefect(
        lambda: create_link_artifact(
            key="mlflow-run", link=page, link_text="MLflow run", description="metrics, AP table, artifacts"
        )
    )
    return journal, tracker


def _submit(runner: Runner, stage: Stage) -> PrefectFuture[Any]:
    retries = runner.plan.benchmark.runtime.retries if stage.kind != "aggregate" else 0
    return _TASKS[stage.kind].with_options(retries=retries).submit(runner, stage)


def _aggregate_what_there_is(
    whole: Plan, plan: Plan, runner: Runner, failures: dict[str, Exception]
) -> tuple[Path, dict[str, str]]:
    """The folder of the table, and its holes: cells that failed, or were not asked for and are not in the store.

    Raises the failure if there is nothing to make a table of.
    """
    last = whole.stages[-1]
    if whole.has_table and last.id in runner.folders and not failures:
        return runner.folders[last.id], {}
    if failures and not whole.has_table:
        raise one_of(failures)
    if last.id in failures:
        raise failures[last.id]
    find_left_out(whole, plan, runner)
    holes = {end.id: why_missing(end, plan, failures) for end in whole.ends if end.id not in runner.folders}
    if not whole.has_table:
        return runner.folders[plan.stages[-1].id if holes else last.id], holes
    partial = partial_aggregate(whole, holes)
    if partial is None:
        raise one_of(failures)
    for stage in whole.stages:  # inputs of the table that no selected cell needed
        if stage.id in partial.inputs.values() and stage.id not in runner.folders:
            _TASKS[stage.kind](runner, stage)
    _TASKS["aggregate"](runner, partial)
    return runner.folders[partial.id], holes


def _record(
    plan: Plan, runner: Runner, folder: Path, holes: dict[str, str], tracker: Tracker, part: str | None
) -> RunRecord:
    run, stages = runner.journal.run, {stage.id: stage.key for stage in plan.stages}
    return RunRecord(
        name=run.name, key=run.key, folder=str(folder), tracking_uri=without_login(run.tracking_uri),
        mlflow_page=_mlflow_page(tracker), prefect_page=run.tags["prefect.flow_run_url"], finished=time.time(),
        mlflow_run_id=tracker.run_id, settings=run.settings, stages={**stages, **_table_with_holes(plan, folder)},
        environment=brief(run.environment), holes=holes, part=part,
    )  # fmt: skip


def _table_with_holes(plan: Plan, folder: Path) -> dict[str, str]:
    """It has a key of its own."""
    return {plan.stages[-1].id: folder.name} if plan.has_table else {}


def _write_report(record: RunRecord) -> None:
    """Before the run's end is noted, with which MLflow takes it. A run without its report is a run all the same."""
    try:
        write_benchmark_report(record)
    except Exception:  # whatever it is: `pcd report --open` says it again
        _log.warning("the report was not written", exc_info=True)


def _mlflow_page(tracker: Tracker) -> str:
    """On the user's server, or on the one that `pcd ui` starts over our own database."""
    uri = tracking_uri()
    server = uri if uri.startswith("http") else f"http://127.0.0.1:{MLFLOW_PORT}"
    return without_login(server).rstrip("/") + tracker.url_path


def _show_in_prefect(plan: Plan, folder: Path) -> None:
    if plan.has_table:
        table, title = (folder / "ap_table.md").read_text(), f"AP table of {plan.benchmark.name}"
        tell_prefect(lambda: create_markdown_artifact(key="ap-table", markdown=table, description=title))
