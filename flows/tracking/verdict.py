"""The verdict of a rerun in MLflow: a run of its own, and tags that lead from it to both benchmark runs and back."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from mlflow import MlflowClient
from mlflow.entities import RunStatus
from mlflow.exceptions import MlflowException

from eval.verdict import JUDGED_METRICS, RunVerdict
from eval.verdict_table import summary_of
from flows.home import tracking_uri
from flows.logins import without_login
from flows.run_record import RunRecord
from flows.tracking.client import open_client
from flows.tracking.repeatable import log_figures, set_tags

__all__ = ["record_verdict"]

_log = logging.getLogger(__name__)

_FILES: Final = ("verdict.png", "verdict.json", "verdict.csv", "verdict.md", "verdict.html")


def record_verdict(
    verdict: RunVerdict, folder: Path, original: RunRecord, rerun: RunRecord, tags: Mapping[str, str]
) -> str | None:
    """Make the verdict's run, or renew that of an earlier attempt, beside the run of the rerun it is about.

    Args:
        verdict: becomes metrics, `<cell>/<metric> <what>` and the counts of each outcome.
        folder: of eval.verdict_table.write_verdict and eval.verdict_figure.draw_verdict.
        original, rerun: both benchmark runs. The original may lie in another MLflow, and then gets no link.
        tags: more of them.

    Returns the page of the run, as path behind MLflow's address; None if MLflow did not take it, which is logged.
    """
    uri = tracking_uri()  # a record keeps no login
    if without_login(uri) != rerun.tracking_uri:
        uri = rerun.tracking_uri
    try:
        return _record(open_client(uri), verdict, folder, original, rerun, tags)
    except MlflowException:
        _log.warning("MLflow did not take the verdict in %s", folder, exc_info=True)
        return None


def _record(
    client: MlflowClient, verdict: RunVerdict, folder: Path, original: RunRecord, rerun: RunRecord,
    tags: Mapping[str, str],
) -> str:  # fmt: skip
    experiment = str(client.get_run(rerun.mlflow_run_id).info.experiment_id)
    identity = {"pcd.stage": "verdict", "pcd.rerun_run": rerun.mlflow_run_id}
    query = " and ".join(f"tags.`{name}` = '{value}'" for name, value in identity.items())
    found = client.search_runs([experiment], query, max_results=1)
    name = f"verdict: {rerun.part or rerun.name}"
    run = found[0] if found else client.create_run(experiment, tags=identity, run_name=name)
    run_id, outcome = str(run.info.run_id), verdict.outcome or "hole"
    said = dict(tags) | {
        "pcd.part": rerun.part or "",
        "pcd.original_run": original.mlflow_run_id,
        "pcd.outcome": outcome,
        "pcd.regressed": str(verdict.regressed).lower(),
        "mlflow.note.content": _first_page(verdict, folder, original, rerun),
    }
    log_figures(client, run_id, _figures(verdict, client.get_run(run_id).data.metrics))
    set_tags(client, run_id, said)
    for file in _FILES:
        client.log_artifact(run_id, str(folder / file))
    client.set_terminated(run_id, RunStatus.to_string(RunStatus.FAILED if verdict.is_failure else RunStatus.FINISHED))
    set_tags(client, rerun.mlflow_run_id, {"pcd.verdict_run": run_id, "pcd.outcome": outcome})
    _link_original(client, original, {"pcd.last_verdict_run": run_id, "pcd.last_rerun_run": rerun.mlflow_run_id})
    return f"/#/experiments/{experiment}/runs/{run_id}?workflowType=machine_learning"


def _link_original(client: MlflowClient, original: RunRecord, tags: Mapping[str, str]) -> None:
    try:
        set_tags(client, original.mlflow_run_id, tags)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise


def _figures(verdict: RunVerdict, before: Mapping[str, float]) -> dict[str, float]:
    """`before`: of the verdict that is renewed. An outcome that it counted and that is gone counts nothing."""
    figures: dict[str, float] = {name: 0 for name in before if name.startswith("cells ")}
    figures["cells"] = len(verdict.cells)
    for cell in verdict.cells:
        outcome = f"cells {cell.outcome or 'hole'}"
        figures[outcome] = figures.get(outcome, 0) + 1
        for metric in JUDGED_METRICS:
            if d := cell.differences.get(metric):
                parts = {"original": d.original, "rerun": d.rerun, "difference": d.change, "tolerance": d.tolerance.ap}
                figures |= {f"{cell.cell}/{metric} {what}": value for what, value in parts.items()}
    return figures


def _first_page(verdict: RunVerdict, folder: Path, original: RunRecord, rerun: RunRecord) -> str:
    """The summary first: MLflow folds the description behind its first lines."""
    links = f"[the original]({_path(original)}) · [the rerun]({_path(rerun)})"
    return "\n".join([summary_of(original.name, verdict), links, "", (folder / "verdict.md").read_text()])


def _path(record: RunRecord) -> str:
    """Within MLflow's pages, whatever their address is today."""
    return "/" + record.mlflow_page.split("/", 3)[3]
