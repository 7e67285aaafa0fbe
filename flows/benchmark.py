"""The flow that turns a benchmark's settings into its AP table."""

import sys
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import FlowRunContext
from prefect.states import Completed
from rich.console import Console

from flows.environment import describe_environment
from flows.home import MLFLOW_PORT, PREFECT_PORT, home, tracking_uri
from flows.plan import Plan, Stage, StageKind, make_plan
from flows.progress import describe_plan, make_reporter
from flows.run_record import write_record
from flows.runner import Runner
from flows.settings import Benchmark
from flows.store import Store
from flows.tracking import Tracker
from pcd.errors import PCDError

__all__ = ["benchmark"]


def _worth_another_try(_task: Any, _run: TaskRun, state: State[Any]) -> bool:
    """Not what the user has to mend, and not what the user stopped."""
    error = state.result(raise_on_failure=False)
    return not isinstance(error, PCDError | KeyboardInterrupt)


# The store decides what has to run, and a found stage ends in the state "Cached"; Prefect keeps no results of its own.


def _bring_about(runner: Runner, stage: Stage) -> State[None]:
    was_stored = runner.bring_about(stage)
    return Completed(name="Cached" if was_stored else "Completed", message=str(runner.folders[stage.id]))


@task(task_run_name="{stage.id}", cache_policy=NO_CACHE, retry_condition_fn=_worth_another_try)
def fetch_teacher(runner: Runner, stage: Stage) -> State[None]:
    """Download, verify and load the teacher's checkpoint."""
    return _bring_about(runner, stage)


@task(task_run_name="{stage.id}", cache_policy=NO_CACHE, retry_condition_fn=_worth_another_try)
def prepare_data(runner: Runner, stage: Stage) -> State[None]:
    """Draw the shapes set, or check the user's own."""
    return _bring_about(runner, stage)


@task(task_run_name="{stage.id}", cache_policy=NO_CACHE, retry_condition_fn=_worth_another_try)
def pretrain_student(runner: Runner, stage: Stage) -> State[None]:
    """PCD pre-training; a retry goes on from the last checkpoint."""
    return _bring_about(runner, stage)


@task(task_run_name="{stage.id}", cache_policy=NO_CACHE, retry_condition_fn=_worth_another_try)
def finetune_detector(runner: Runner, stage: Stage) -> State[None]:
    """Mask R-CNN over the student's backbone, and its AP; a retry goes on from the last checkpoint."""
    return _bring_about(runner, stage)


@task(task_run_name="{stage.id}", cache_policy=NO_CACHE)
def aggregate_results(runner: Runner, stage: Stage) -> State[None]:
    """The AP table and its figures."""
    return _bring_about(runner, stage)


_TASKS: dict[StageKind, Any] = {
    "teacher": fetch_teacher,
    "data": prepare_data,
    "pretrain": pretrain_student,
    "finetune": finetune_detector,
    "aggregate": aggregate_results,
}


@flow(name="benchmark", flow_run_name="{settings.name}", validate_parameters=True)
def benchmark(settings: Benchmark) -> str:
    """Run what the store does not have, in the order of the plan. Returns the folder with the AP table."""
    plan, store = make_plan(settings), Store(home() / "store")
    tracker = Tracker(tracking_uri(), home() / "mlartifacts", plan)
    links = _link_both_ways(tracker)
    with make_reporter(Console(file=sys.stdout)) as reporter:
        reporter.note(describe_plan(plan, sum(store.find(stage) is not None for stage in plan.stages)))
        environment = describe_environment()
        tracker.start_benchmark(links, environment)
        runner = Runner(plan, store, tracker, reporter, environment)
        try:
            for stage in plan.stages:
                retries = settings.runtime.retries if stage.kind != "aggregate" else 0
                _TASKS[stage.kind].with_options(retries=retries)(runner, stage)
        except BaseException as error:
            tracker.fail_benchmark(f"{type(error).__name__}: {error}")
            raise
    return str(_publish(plan, tracker, runner.folders[plan.stages[-1].id], links))


def _link_both_ways(tracker: Tracker) -> dict[str, str]:
    """Prefect's run id into MLflow's tags, MLflow's link into Prefect's artifacts. Both pages are those of `pcd ui`."""
    context = FlowRunContext.get()
    assert context is not None  # we are inside the flow
    assert context.flow_run is not None
    server = tracker.uri if tracker.uri.startswith("http") else f"http://127.0.0.1:{MLFLOW_PORT}"
    page = server.rstrip("/") + tracker.url_path
    create_link_artifact(
        key="mlflow-run", link=page, link_text="MLflow run", description="metrics, AP table, artifacts"
    )
    flow_run_id = str(context.flow_run.id)
    return {
        "prefect.flow_run_id": flow_run_id,
        "prefect.flow_run_url": f"http://127.0.0.1:{PREFECT_PORT}/runs/flow-run/{flow_run_id}",
        "mlflow.page": page,
    }


def _publish(plan: Plan, tracker: Tracker, folder: Path, links: dict[str, str]) -> Path:
    create_markdown_artifact(
        key="ap-table", markdown=(folder / "ap_table.md").read_text(), description=f"AP table of {plan.benchmark.name}"
    )
    tracker.finish_benchmark(folder)
    write_record(plan, folder, tracker.uri, links)
    return folder
