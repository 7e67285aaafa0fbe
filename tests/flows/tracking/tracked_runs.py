"""Runs as the tests of the tracker make them, and as MLflow has them."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run as TrackedRun

from flows.journal import Journal
from flows.tracking.publisher import publish_all
from flows.tracking.tracker import Tracker

PRETRAIN, CELL = "pretrain:pcd.seed0", "finetune:pcd.smoke_fpn.seed0"
Child = Callable[[str], TrackedRun]
Finish = Callable[[Mapping[str, float]], Journal]


def parent_of(client: MlflowClient, journal: Journal) -> TrackedRun:
    experiment = client.get_experiment_by_name("pcd-benchmarks")
    query = f"tags.`pcd.benchmark` = '{journal.run.key}'"
    (run,) = client.search_runs([experiment.experiment_id], query)
    return run


def children_of(client: MlflowClient, journal: Journal) -> list[TrackedRun]:
    parent = parent_of(client, journal)
    query = f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
    return list(client.search_runs([parent.info.experiment_id], query))


def metric_lines(*steps: int) -> str:
    return "".join(json.dumps({"step": s, "total": 9, "time": 1.0 + s, "loss": 1.0 / s}) + "\n" for s in steps)


def finished_stage(folder: Path, steps: int = 5) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "metrics.jsonl").write_text(metric_lines(*range(1, steps + 1)))
    metrics = {"bbox/AP": 12.5, "bbox/APl": None}
    result = {"metrics": metrics, "iterations": steps, "seconds": 2.5, "weights_sha256": "f00"}
    (folder / "result.json").write_text(json.dumps(result))
    (folder / "manifest.json").write_text(json.dumps({"command": ["python", "-m", "x", "a folder/spec.json"]}))
    return str(folder)


def publish(journal: Journal) -> None:
    publish_all(Tracker(journal.run), journal)


def steps_of(client: MlflowClient, run: TrackedRun, name: str = "loss") -> list[int]:
    return [metric.step for metric in client.get_metric_history(run.info.run_id, name)]
