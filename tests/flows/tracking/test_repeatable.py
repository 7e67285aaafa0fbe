"""Figures by step, in a database of MLflow's."""

from pathlib import Path

import pytest
from mlflow import MlflowClient

from flows.tracking.repeatable import Series

pytestmark = pytest.mark.filterwarnings(
    # MLflow 3.17 with SQLAlchemy 2.1: theirs.
    "ignore::sqlalchemy.exc.SADeprecationWarning",
    "ignore::ResourceWarning",
)


def test_a_category_whose_name_mlflow_refuses_keeps_its_curve(tmp_path: Path) -> None:
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    run_id = client.create_run(client.create_experiment("watch", str(tmp_path))).info.run_id
    lines = [{"step": step, "time": 1.0, "epoch": step / 2, "bbox/AP-cup (tea)": 10.0 * step} for step in (1, 2)]
    series = Series(client)
    for _ in range(2):
        series.log(run_id, lines, "epoch")
    curves = {n: client.get_metric_history(run_id, n) for n in ("epoch", "bbox/AP-cup _tea_")}
    told = {name: [(metric.step, metric.value) for metric in curve] for name, curve in curves.items()}
    assert told == {"epoch": [(1, 0.5), (2, 1.0)], "bbox/AP-cup _tea_": [(1, 10.0), (2, 20.0)]}
