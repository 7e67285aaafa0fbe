"""MLflow: the only module that imports it. Everything goes by explicit run ids; runs are found again by their tags.

benchmark run                AP table on its first page, figures, environment, data sets
 ├─ data, teacher, …         one child per stage: settings, metrics by step, result, log
 └─ finetune: cells          … and AP as plain metrics: bbox/AP, segm/AP, …
"""

import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunStatus, RunTag
from mlflow.exceptions import MlflowException

from flows.plan import Plan, Stage
from pcd.errors import PCDError
from pcd.settings import flat_settings

__all__ = ["Tracker"]

_Item = TypeVar("_Item")
_log = logging.getLogger(__name__)

_EXPERIMENT: Final = "pcd-benchmarks"
_MAX_PER_CALL: Final = 500  # an MLflow batch takes at most 1000 metrics and 100 params
_LINES_PER_CALL: Final = 50  # of about ten figures each
_FOREIGN_TO_NAMES: Final = re.compile(r"[^\w.\- :/]|/(?=/)")  # MLflow refuses them, and categories have them
_NOT_FIGURES: Final = frozenset({"step", "total", "time"})
_TRACKED_FILES: Final[Mapping[str, tuple[str, ...]]] = {
    "teacher": (),
    "data": ("data.json",),
    "pretrain": (
        *("metrics.jsonl", "backbone.safetensors", "MODEL_CARD.md"),
        *("receptive_field.png", "receptive_field.json"),
    ),
    "finetune": ("metrics.jsonl", "predictions.json"),
    "aggregate": (
        *("ap_table.html", "ap_table.md", "ap_table.json", "cells.csv", "arms.csv"),
        *("ap_by_arm.png", "losses.png", "detections.png"),
    ),
}


class Tracker:
    """One benchmark's runs in MLflow."""

    def __init__(self, uri: str, artifacts: Path, plan: Plan) -> None:
        """`artifacts` is used only by a database of our own; a server keeps its artifacts where it wants."""
        self.uri = uri
        self._client = MlflowClient(tracking_uri=uri)
        self._plan = plan
        self._sent: dict[str, int] = {}
        location = artifacts.as_uri() if uri.startswith("sqlite:") else None
        tags = {"pcd.benchmark": plan.key, "pcd.stage": "benchmark"}
        try:
            self.experiment_id = self._open_experiment(location)
            self.run_id = self._open_run(plan.benchmark.name, tags, parent=None)
        except MlflowException as error:
            reason = str(error).splitlines()[0][:200]
            raise PCDError(f"cannot use MLflow at {uri} ({reason}); check MLFLOW_TRACKING_URI") from None

    # The benchmark's own run.

    def start_benchmark(self, links: Mapping[str, str], environment: Mapping[str, Any]) -> None:
        self._log_params(self.run_id, {name: value for name, (value, _) in flat_settings(self._plan.benchmark).items()})
        self._set_tags(self.run_id, links)
        self._client.log_dict(self.run_id, self._plan.benchmark.model_dump(mode="json"), "benchmark.json")
        self._client.log_dict(self.run_id, dict(environment), "environment.json")

    def finish_benchmark(self, table_folder: Path | None) -> None:
        """The table on the run's first page, its figures as artifacts, each arm's means as metrics; if there is one."""
        if table_folder is not None:
            self._log_table(table_folder)
        if "pcd.failure" in self._client.get_run(self.run_id).data.tags:  # of an attempt before this one
            self._client.delete_tag(self.run_id, "pcd.failure")
        self._end(self.run_id, RunStatus.FINISHED)

    def _log_table(self, folder: Path) -> None:
        self._log_files(self.run_id, folder, _TRACKED_FILES["aggregate"])
        self._set_tags(self.run_id, {"mlflow.note.content": _first_page(folder)})
        table = json.loads((folder / "ap_table.json").read_text())
        means = {
            f"{row['arm']}/{name.removesuffix(' mean')}": value
            for row in table["arms"]
            for name, value in row.items()
            if name.endswith(" mean") and value is not None
        }
        self._log_figures(self.run_id, means)

    def fail_benchmark(self, error: BaseException) -> None:
        """Say why on the run; never raises, so that the error itself is what the user sees."""
        try:
            self._set_tags(self.run_id, {"pcd.failure": f"{type(error).__name__}: {error}"[:5000]})
        except MlflowException:
            _log.warning("MLflow did not take the reason of the failure", exc_info=True)
        self._end(self.run_id, _status_after(error))

    def _end(self, run_id: str, status: int) -> None:
        try:
            self._client.set_terminated(run_id, RunStatus.to_string(status))
        except MlflowException:
            _log.warning("MLflow did not take the end of run %s", run_id, exc_info=True)

    @property
    def url_path(self) -> str:
        """Behind the server's address; MLflow's UI opens the right view only by a link of this form."""
        return f"/#/experiments/{self.experiment_id}/runs/{self.run_id}?workflowType=machine_learning"

    # Its children.

    @contextmanager
    def stage_run(self, stage: Stage, *, cached: bool) -> Iterator[str]:
        """The stage's child run, opened or continued; its status says in the end how the block ended."""
        tags = {f"pcd.{name}": value for name, value in stage.labels.items()}
        tags |= {
            "pcd.stage": stage.kind,
            "pcd.stage_id": stage.id,
            "pcd.key": stage.key,
            "pcd.cached": str(cached).lower(),
        }
        run_id = self._open_run(stage.id, tags, parent=self.run_id)
        self._log_params(run_id, _flatten(stage.settings))
        try:
            yield run_id
        except BaseException as error:
            self._end(run_id, _status_after(error))
            raise
        self._end(run_id, RunStatus.FINISHED)

    def log_live(self, run_id: str, lines: Sequence[Mapping[str, Any]]) -> None:
        """As log_lines, but training never fails from it: what MLflow does not take now is sent with the result."""
        try:
            self.log_lines(run_id, lines)
        except MlflowException:
            _log.warning("MLflow did not take metrics; they follow when the stage is done", exc_info=True)

    def log_lines(self, run_id: str, lines: Sequence[Mapping[str, Any]]) -> None:
        """Figures of metrics.jsonl, each once: steps up to the last one sent are passed over."""
        fresh = [line for line in lines if line["step"] > self._sent[run_id]]
        for batch in _batches(fresh, _LINES_PER_CALL):
            metrics = [
                Metric(name, float(value), int(line["time"] * 1000), int(line["step"]))
                for line in batch
                for name, value in line.items()
                if name not in _NOT_FIGURES
            ]
            if metrics:
                self._client.log_batch(run_id, metrics=metrics)
            self._sent[run_id] = int(batch[-1]["step"])

    def log_stage_result(self, run_id: str, stage: Stage, folder: Path) -> None:
        """What the finished stage left: figures that are still missing, result, spec, log, and its own artifacts."""
        metrics = folder / "metrics.jsonl"
        if metrics.exists():
            self.log_lines(run_id, [json.loads(line) for line in metrics.read_text().splitlines()])
        result = json.loads((folder / "result.json").read_text())
        figures = {name: float(value) for name, value in result.items() if isinstance(value, int | float)}
        figures |= {name: value for name, value in result.get("metrics", {}).items() if value is not None}
        self._log_figures(run_id, figures)
        self._log_files(run_id, folder, ("spec.json", "result.json", "manifest.json", "log.txt"))
        self._log_files(run_id, folder, _TRACKED_FILES[stage.kind])
        if stage.kind == "data":
            self._log_data(run_id, folder)
            self._log_data(self.run_id, folder)

    # The client's calls.

    def _open_experiment(self, location: str | None) -> str:
        found = self._client.get_experiment_by_name(_EXPERIMENT)
        if found is not None:
            return str(found.experiment_id)
        return str(self._client.create_experiment(_EXPERIMENT, artifact_location=location))

    def _open_run(self, name: str, tags: Mapping[str, str], parent: str | None) -> str:
        """The run with these tags under this parent, or a new one."""
        identity = {k: tags[k] for k in ("pcd.benchmark", "pcd.key", "pcd.stage_id") if k in tags}
        identity |= {"mlflow.parentRunId": parent} if parent else {}
        query = " and ".join(f"tags.`{key}` = '{value}'" for key, value in identity.items())
        found = self._client.search_runs([self.experiment_id], query, max_results=1)
        if not found:
            run_id = str(
                self._client.create_run(self.experiment_id, tags={**tags, **identity}, run_name=name).info.run_id
            )
            self._sent[run_id] = 0
            return run_id
        run_id = str(found[0].info.run_id)
        self._client.update_run(run_id, status=RunStatus.to_string(RunStatus.RUNNING))
        self._set_tags(run_id, {k: v for k, v in tags.items() if k != "pcd.cached"})  # it says how the run came to be
        history = self._client.get_metric_history(run_id, "loss")
        self._sent[run_id] = max((metric.step for metric in history), default=0)
        return run_id

    def _set_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        self._client.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])

    def _log_params(self, run_id: str, params: Mapping[str, Any]) -> None:
        logged = self._client.get_run(run_id).data.params  # MLflow refuses to change a parameter, also to its own value
        new = [Param(name, str(value)[:6000]) for name, value in params.items() if name not in logged]
        for batch in _batches(new, 100):
            self._client.log_batch(run_id, params=batch)

    def _log_figures(self, run_id: str, figures: Mapping[str, float]) -> None:
        logged = self._client.get_run(run_id).data.metrics
        named = {_FOREIGN_TO_NAMES.sub("_", name): value for name, value in figures.items()}
        new = [Metric(name, value, 0, 0) for name, value in named.items() if logged.get(name) != value]
        for batch in _batches(new, _MAX_PER_CALL):
            self._client.log_batch(run_id, metrics=batch)

    def _log_files(self, run_id: str, folder: Path, names: Sequence[str]) -> None:
        for name in names:
            if (folder / name).exists():
                self._client.log_artifact(run_id, str(folder / name))

    def _log_data(self, run_id: str, folder: Path) -> None:
        data = json.loads((folder / "data.json").read_text())
        inputs = []
        for context, count in (("pretraining", "pool"), ("training", "train"), ("evaluation", "val")):
            profile = json.dumps({"images": data["counts"][count]})
            source = json.dumps({"fingerprint": data["fingerprint"]})
            dataset = Dataset(f"{data['name']}-{count}", data["fingerprint"][:36], "local", source, None, profile)
            inputs.append(DatasetInput(dataset, [InputTag("mlflow.data.context", context)]))
        self._client.log_inputs(run_id, inputs)


def _first_page(folder: Path) -> str:
    """The summary first: MLflow folds the description behind its first lines."""
    return "\n".join((folder / name).read_text() for name in ("ap_summary.md", "ap_table.md"))


def _status_after(error: BaseException) -> int:
    stopped = isinstance(error, KeyboardInterrupt | SystemExit)
    return int(RunStatus.KILLED if stopped else RunStatus.FAILED)


def _batches(items: Sequence[_Item], length: int) -> Iterator[Sequence[_Item]]:
    for start in range(0, len(items), length):
        yield items[start : start + length]


def _flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat
