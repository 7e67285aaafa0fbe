"""Saved views of MLflow's list of runs, so that its columns are the ones that a benchmark is read by.

MLflow keeps a view in a tag of the experiment, as its own button "Save as new view" does; there its name stands in the
list's menu, and a link opens it (mlflow/mlflow#24359 describes the tag).
"""

import json
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:  # `pcd report` makes links and has no need of MLflow
    from mlflow import MlflowClient

__all__ = ["cells_page", "runs_page", "save_cells_view", "save_runs_view"]

_TAG: Final = "mlflow.sharedViewState."
_MOST_METRICS: Final = 12
_CELL_METRICS: Final = ("bbox/AP", "segm/AP", "bbox/AP50", "segm/AP50", "top1", "knn_top1")


def save_runs_view(client: "MlflowClient", experiment: str, benchmark: str, means: Sequence[str]) -> None:
    """All runs of this name side by side, or renew that view.

    Args:
        means: names of the figures that such a run has, arm/protocol/metric; the first of them become columns.
    """
    columns = [_column("tags", "pcd.outcome"), *(_column("metrics", name) for name in means[:_MOST_METRICS])]
    search = f"tags.`pcd.stage` = 'benchmark' AND attributes.run_name = '{benchmark}'"
    _save(client, experiment, _runs_key(benchmark), f"{benchmark}: runs", columns, search)


def save_cells_view(client: "MlflowClient", experiment: str, benchmark: str, run_id: str) -> None:
    """The cells of one run, each with its AP."""
    columns = [_column("tags", f"pcd.{axis}") for axis in ("arm", "protocol", "seed")]
    columns += [_column("metrics", name) for name in _CELL_METRICS]
    search = f"tags.`pcd.benchmark_run` = '{run_id}' AND tags.`pcd.protocol` LIKE '%'"
    _save(client, experiment, _cells_key(run_id), f"{benchmark}: cells of {run_id[:8]}", columns, search)


def runs_page(mlflow_page: str, benchmark: str) -> str:
    """Address of the benchmark's runs beside each other, from that of one of them."""
    return _page(mlflow_page, _runs_key(benchmark))


def cells_page(mlflow_page: str, run_id: str) -> str:
    """Address of the list of a run's cells, from that of the run."""
    return _page(mlflow_page, _cells_key(run_id))


def _page(mlflow_page: str, key: str) -> str:
    experiment = mlflow_page.partition("/runs/")[0]
    return f"{experiment}/runs?viewStateShareKey={key}&workflowType=machine_learning"


def _runs_key(benchmark: str) -> str:
    return f"pcd.{benchmark}.runs"


def _cells_key(run_id: str) -> str:
    return f"pcd.cells.{run_id}"


def _column(kind: str, name: str) -> str:
    return f"{kind}.`{name}`"


def _save(
    client: "MlflowClient", experiment: str, key: str, name: str, columns: Sequence[str], search: str
) -> None:  # fmt: skip
    state: dict[str, Any] = {
        "selectedColumns": [_column("attributes", "Duration"), *columns],
        "searchFilter": search,
        "orderByKey": _column("attributes", "start_time"),
        "orderByAsc": False,
    }
    now = int(time.time() * 1000)
    value = {"name": name, "createdAt": now, "updatedAt": now, "state": json.dumps(state)}
    client.set_experiment_tag(experiment, _TAG + key, json.dumps(value))
