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

__all__ = ["cells_page", "runs_page", "save_views"]

_TAG: Final = "mlflow.sharedViewState."
_MOST_METRICS: Final = 12
_CELL_METRICS: Final = ("bbox/AP", "segm/AP", "bbox/AP50", "segm/AP50", "top1", "knn_top1")


def save_views(
    client: "MlflowClient", experiment: str, benchmark: str, run_id: str, means: Sequence[str]
) -> None:  # fmt: skip
    """Two views under the benchmark's name, or renew them: its runs side by side, and the cells of the newest.

    Args:
        run_id: of the newest.
        means: names of the figures that its own run has, arm/protocol/metric; the first of them become columns.
    """
    runs = _view(
        [_column("tags", "pcd.outcome"), *(_column("metrics", name) for name in means[:_MOST_METRICS])],
        f"tags.`pcd.stage` = 'benchmark' AND attributes.run_name = '{benchmark}'",
    )
    cells = _view(
        [_column("tags", f"pcd.{axis}") for axis in ("arm", "protocol", "seed")]
        + [_column("metrics", name) for name in _CELL_METRICS],
        f"tags.`pcd.benchmark_run` = '{run_id}' AND tags.`pcd.protocol` LIKE '%'",
    )
    for key, name, state in (
        (_runs_key(benchmark), "runs", runs),
        (_cells_key(benchmark), "cells of the newest", cells),
    ):
        now = int(time.time() * 1000)
        value = {"name": f"{benchmark}: {name}", "createdAt": now, "updatedAt": now, "state": json.dumps(state)}
        client.set_experiment_tag(experiment, _TAG + key, json.dumps(value))


def runs_page(mlflow_page: str, benchmark: str) -> str:
    """Address of the benchmark's runs beside each other, from that of one of them."""
    return _page(mlflow_page, _runs_key(benchmark))


def cells_page(mlflow_page: str, benchmark: str) -> str:
    """Address of the list of the newest run's cells."""
    return _page(mlflow_page, _cells_key(benchmark))


def _page(mlflow_page: str, key: str) -> str:
    experiment = mlflow_page.partition("/runs/")[0]
    return f"{experiment}/runs?viewStateShareKey={key}&workflowType=machine_learning"


def _runs_key(benchmark: str) -> str:
    return f"pcd-{benchmark}"


def _cells_key(benchmark: str) -> str:
    return f"pcd-{benchmark}-cells"


def _column(kind: str, name: str) -> str:
    return f"{kind}.`{name}`"


def _view(columns: Sequence[str], search: str) -> dict[str, Any]:
    return {
        "selectedColumns": [_column("attributes", "Duration"), *columns],
        "columnWidths": {_column("attributes", "Run Name"): 320},
        "searchFilter": search,
        "orderByKey": _column("attributes", "start_time"),
        "orderByAsc": False,
    }
