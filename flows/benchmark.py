"""The flow that turns a benchmark's settings into its AP table."""

import sys
from pathlib import Path
from typing import Any, Final

from prefect import Task, flow
from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import FlowRunContext
from prefect.states import Completed
from rich.console import Console

from flows.environment import describe_environment
from flows.home import MLFLOW_PORT, home, tracking_uri
from flows.plan import Plan, Stage, StageKind, make_plan
from flows.prefect_server import pages_address
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
    "pretrain": _stage_task("pretrain_student", "PCD pre-training; a retry goes on from the last checkpoint."),
    "finetune": _stage_task("finetune_detector", "Mask R-CNN and its AP; a retry goes on from the last checkpoint."),
    "aggregate": _stage_task("aggregate_results", "The AP table and its figures."),
}


@flow(name="benchmark", flow_run_name="{settings.name}", validate_parameters=True)
def benchmark(settings: Benchmark) -> str:
    """Run what the store does not have, in the order of the plan. Returns the folder with the AP table."""
    plan, store = make_plan(settings), Store(home() / "store")
    tracker = Tracker(tracking_uri(), home() / "mlartifacts", plan)
    try:
        links, environment = _link_both_ways(tracker), describe_environment()
        tracker.start_benchmark(links, environment)
        with make_reporter(Console(file=sys.stdout)) as reporter:
            reporter.note(describe_plan(plan, sum(store.find(stage) is not None for stage in plan.stages)))
            runner = Runner(plan, store, tracker, reporter, environment)
            for stage in plan.stages:
                retries = settings.runtime.retries if stage.kind != "aggregate" else 0
                _TASKS[stage.kind].with_options(retries=retries)(runner, stage)
        return str(_publish(plan, tracker, runner.folders[plan.stages[-1].id], links))
    except BaseException as error:
        tracker.fail_benchmark(error)
        raise


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
        "prefect.flow_run_url": f"{pages_address()}/runs/flow-run/{flow_run_id}",
        "mlflow.page": page,
    }


def _publish(plan: Plan, tracker: Tracker, folder: Path, links: dict[str, str]) -> Path:
    if plan.has_table:
        title = f"AP table of {plan.benchmark.name}"
        create_markdown_artifact(key="ap-table", markdown=(folder / "ap_table.md").read_text(), description=title)
    tracker.finish_benchmark(folder if plan.has_table else None)
    write_record(plan, folder, tracker.uri, links)
    return folder
