"""What is said to MLflow of one run, so that saying it again changes nothing."""

import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag

from pcd.flat import flatten

__all__ = ["Series", "flatten", "log_data", "log_figures", "log_files", "log_params", "set_tags", "take_back_tag"]

_Item = TypeVar("_Item")

_MAX_PER_CALL: Final = 500  # an MLflow batch takes at most 1000 metrics and 100 params
_FOREIGN_TO_NAMES: Final = re.compile(r"[^\w.\- :/]|/(?=/)")  # MLflow refuses them, and categories have them
_NOT_FIGURES: Final = frozenset({"step", "total", "time"})


class Series:
    """Figures by step, each step once."""

    def __init__(self, client: MlflowClient) -> None:
        self._client = client
        self._sent: dict[str, int] = {}

    def log(self, run_id: str, lines: Sequence[Mapping[str, Any]], name: str) -> None:
        """`name`: a figure that every line has; the last step of it that MLflow knows says what was sent before."""
        series = f"{run_id} {name}"
        if series not in self._sent:
            history = self._client.get_metric_history(run_id, name) if lines else []
            self._sent[series] = max((metric.step for metric in history), default=0)
        fresh = [line for line in lines if line.get("step", 0) > self._sent[series]]
        width = max((len(line) for line in fresh), default=1)
        for batch in _batches(fresh, max(1, _MAX_PER_CALL // width)):
            metrics = [
                Metric(
                    _FOREIGN_TO_NAMES.sub("_", key), float(value), int(line.get("time", 0) * 1000), int(line["step"])
                )
                for line in batch
                for key, value in line.items()
                if key not in _NOT_FIGURES and isinstance(value, int | float)
            ]
            if metrics:
                self._client.log_batch(run_id, metrics=metrics)
            self._sent[series] = int(batch[-1]["step"])


def set_tags(client: MlflowClient, run_id: str, tags: Mapping[str, str]) -> None:
    client.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])


def take_back_tag(client: MlflowClient, run_id: str, name: str) -> None:
    if name in client.get_run(run_id).data.tags:
        client.delete_tag(run_id, name)


def log_params(client: MlflowClient, run_id: str, params: Mapping[str, Any]) -> None:
    logged = client.get_run(run_id).data.params  # MLflow refuses to change a parameter, also to its own value
    named = {_FOREIGN_TO_NAMES.sub("_", name)[:250]: value for name, value in params.items()}
    new = [Param(name, str(value)[:6000]) for name, value in named.items() if name not in logged]
    for batch in _batches(new, 100):
        client.log_batch(run_id, params=batch)


def log_figures(client: MlflowClient, run_id: str, figures: Mapping[str, float]) -> None:
    logged = client.get_run(run_id).data.metrics
    named = {_FOREIGN_TO_NAMES.sub("_", name): value for name, value in figures.items()}
    now = int(time.time() * 1000)  # at one step and time MLflow would show the largest value, and not the newest
    new = [Metric(name, value, now, 0) for name, value in named.items() if logged.get(name) != value]
    for batch in _batches(new, _MAX_PER_CALL):
        client.log_batch(run_id, metrics=batch)


def log_files(client: MlflowClient, run_id: str, folder: Path, names: Sequence[str]) -> None:
    """Those that are there; names may be patterns."""
    for path in (path for name in names for path in sorted(folder.glob(name))):
        client.log_artifact(run_id, str(path))


def log_data(client: MlflowClient, run_id: str, folder: Path) -> None:
    """The data sets of a data stage's folder, as inputs of the run."""
    data = json.loads((folder / "data.json").read_text())
    inputs = []
    for context, count in (("pretraining", "pool"), ("training", "train"), ("evaluation", "val")):
        profile = json.dumps({"images": data["counts"][count]})
        source = json.dumps({"fingerprint": data["fingerprint"]})
        dataset = Dataset(f"{data['name']}-{count}", data["fingerprint"][:36], "local", source, None, profile)
        inputs.append(DatasetInput(dataset, [InputTag("mlflow.data.context", context)]))
    client.log_inputs(run_id, inputs)


def _batches(items: Sequence[_Item], length: int) -> Iterator[Sequence[_Item]]:
    for start in range(0, len(items), length):
        yield items[start : start + length]
