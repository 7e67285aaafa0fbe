"""A benchmark whose student is evaluated while it is pre-trained, end to end."""

import json
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.conftest import Pcd

pytestmark = pytest.mark.slow


def test_ap_against_epoch_stands_in_mlflow_and_the_table_is_there(pcd: Pcd, pcd_home: Path) -> None:
    watch = ("watch.protocol=smoke_fpn", "watch.every_epochs=1", "watch.changes={iterations: 3}")
    changes = [f"--set={change}" for change in ("arms=[pcd]", "baseline=pcd", "runtime.parallel=2", *watch)]
    done = pcd("run", "smoke", *changes, "--json")
    assert done.returncode == 0, done.stderr + done.stdout
    client = MlflowClient(f"sqlite:///{pcd_home / 'mlflow.db'}")
    (experiment,) = client.search_experiments(filter_string="name = 'pcd-benchmarks'")
    (run,) = client.search_runs([experiment.experiment_id], filter_string="attributes.run_name = 'watch:pcd.seed0'")
    history = sorted(client.get_metric_history(run.info.run_id, "bbox/AP"), key=lambda metric: metric.step)
    (folder,) = (pcd_home / "store" / "watch").glob("[0-9a-f]*")
    curve = json.loads((folder / "result.json").read_text())["curve"]
    assert [metric.step for metric in history] == [1, 2]
    assert [metric.value for metric in history] == [point["metrics"]["bbox/AP"] for point in curve]
    assert run.info.status == "FINISHED"
