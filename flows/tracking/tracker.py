"""MLflow: what the journal and the folders of a run say, said there. Only this module and its tests import MLflow.

benchmark run                AP table on its first page, figures, environment, data sets
 ├─ data, teacher, …         one child per stage: settings, metrics by step, result, log, system metrics
 └─ finetune: cells          … and AP as plain metrics: bbox/AP, segm/AP, …

Every call may be repeated: runs are found again by their tags, a step is sent once, and what is there already is left
alone. So whoever comes after a crash, or after an hour without MLflow, only has to say it all again.
"""

import json
import logging
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunStatus, RunTag
from mlflow.entities import Run as TrackedRun
from mlflow.exceptions import MlflowException

from flows.journal import Run
from flows.logins import without_login
from pcd.errors import PCDError

__all__ = ["STATUSES", "Tracker", "is_refusal"]

_Item = TypeVar("_Item")
_log = logging.getLogger(__name__)

_EXPERIMENT: Final = "pcd-benchmarks"
_MAX_PER_CALL: Final = 500  # an MLflow batch takes at most 1000 metrics and 100 params
_FOREIGN_TO_NAMES: Final = re.compile(r"[^\w.\- :/]|/(?=/)")  # MLflow refuses them, and categories have them
_NOT_FIGURES: Final = frozenset({"step", "total", "time"})
_LOADS: Final = "system.jsonl"
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
STATUSES: Final = {
    "running": "RUNNING", "cached": "FINISHED", "done": "FINISHED", "finished": "FINISHED", "failed": "FAILED",
    "crashed": "FAILED", "stopped": "KILLED",
}  # fmt: skip
"""What happened, in MLflow's words; a stage that was skipped has no run."""


class Tracker:
    """One benchmark's runs in MLflow."""

    def __init__(self, run: Run) -> None:
        """Raises PCDError if MLflow cannot be reached."""
        self._run = run
        self._sent: dict[str, int] = {}
        location = Path(run.artifacts).as_uri() if run.tracking_uri.startswith("sqlite:") else None
        try:
            with _alone(run.tracking_uri):
                self._client = MlflowClient(tracking_uri=run.tracking_uri)
                self.experiment_id = self._open_experiment(location)
            self.run_id = self._open_benchmark()
            self._children = {child.data.tags["pcd.stage_id"]: child for child in self._search_children()}
        except MlflowException as error:
            reason = without_login(str(error)).splitlines()[0][:200]
            uri = without_login(run.tracking_uri)
            raise PCDError(f"cannot use MLflow at {uri} ({reason}); check MLFLOW_TRACKING_URI") from None

    # The benchmark's own run.

    def start_benchmark(self) -> None:
        self._log_params(self.run_id, _flatten(self._run.settings))
        environment = dict(self._run.environment)
        difference = environment.pop("git_diff", None)
        self._set_tags(
            self.run_id, {**self._run.tags, "mlflow.source.git.commit": environment.get("git_commit") or "?"}
        )
        self._client.log_dict(self.run_id, self._run.settings, "benchmark.json")
        self._client.log_dict(self.run_id, environment, "environment.json")
        if difference:
            self._client.log_text(self.run_id, difference, "source.diff")

    def log_table(self, folder: Path) -> None:
        """The table on the run's first page, its figures as artifacts, each arm's means as metrics."""
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

    def end_benchmark(self, status: str, reason: str | None) -> None:
        if reason:
            self._set_tags(self.run_id, {"pcd.failure": reason[:5000]})
        elif "pcd.failure" in self._client.get_run(self.run_id).data.tags:  # of an attempt before this one
            self._client.delete_tag(self.run_id, "pcd.failure")
        self._client.set_terminated(self.run_id, STATUSES[status])

    @property
    def url_path(self) -> str:
        """Behind the server's address; MLflow's UI opens the right view only by a link of this form."""
        return f"/#/experiments/{self.experiment_id}/runs/{self.run_id}?workflowType=machine_learning"

    # Its children.

    def is_told(self, stage_id: str) -> bool:
        """Whether this stage's run is there and finished, from an earlier run of the same benchmark."""
        child = self._children.get(stage_id)
        return (
            child is not None
            and child.info.status == "FINISHED"
            and child.data.tags["pcd.key"] == self._run.stages[stage_id]["key"]
        )

    def open_stage(self, stage_id: str, *, cached: bool) -> str:
        """The stage's child run, made or continued."""
        stage = self._run.stages[stage_id]
        tags = {f"pcd.{name}": value for name, value in stage["labels"].items()}
        tags |= {"pcd.stage": stage["kind"], "pcd.stage_id": stage_id, "pcd.key": stage["key"]}
        child = self._children.get(stage_id)
        if child is None:
            tags |= {"pcd.benchmark_run": self.run_id, "pcd.cached": str(cached).lower()}
            child = self._create(stage_id, tags | {"mlflow.parentRunId": self.run_id})
            self._children[stage_id] = child
            self._log_params(child.info.run_id, _flatten(stage["settings"]))
        else:
            self._client.update_run(child.info.run_id, status=RunStatus.to_string(RunStatus.RUNNING))
            self._set_tags(child.info.run_id, tags)
        return str(child.info.run_id)

    def log_lines(self, run_id: str, lines: Sequence[Mapping[str, Any]]) -> None:
        """Figures of metrics.jsonl, each once: steps up to the last one sent are passed over."""
        self._log_series(run_id, lines, "loss")

    def log_folder(self, run_id: str, folder: Path) -> None:
        """What a stage's folder has to say by now: figures by step, and the load of the machine meanwhile."""
        self.log_lines(run_id, _whole_lines(folder / "metrics.jsonl"))
        self._log_series(run_id, _whole_lines(folder / _LOADS), "system/cpu_utilization_percentage")

    def log_stage_result(self, run_id: str, stage_id: str, folder: Path) -> None:
        """What the finished stage left: figures that are still missing, result, spec, log, and its own artifacts."""
        kind: str = self._run.stages[stage_id]["kind"]
        self.log_folder(run_id, folder)
        result = json.loads((folder / "result.json").read_text())
        figures = {name: float(value) for name, value in result.items() if isinstance(value, int | float)}
        figures |= {name: value for name, value in result.get("metrics", {}).items() if value is not None}
        self._log_figures(run_id, figures)
        said = {f"pcd.{kind}.{name}": value for name, value in result.items() if isinstance(value, str)}
        self._set_tags(run_id, {**said, **_provenance(folder)})
        self._log_files(run_id, folder, ("spec.json", "result.json", "manifest.json", "log.txt"))
        self._log_files(run_id, folder, _TRACKED_FILES[kind])
        if kind in ("teacher", "data"):
            self._set_tags(self.run_id, said)
        if kind == "data":
            self._log_data(run_id, folder)
            self._log_data(self.run_id, folder)

    def log_failure(self, run_id: str, folder: Path, reason: str | None) -> None:
        self.log_folder(run_id, folder)
        self._log_files(run_id, folder, ("spec.json", "log.txt"))
        if reason:
            self._set_tags(run_id, {"pcd.failure": reason[:5000]})

    def end_stage(self, run_id: str, status: str) -> None:
        self._client.set_terminated(run_id, STATUSES[status])

    # The client's calls.

    def _open_experiment(self, location: str | None) -> str:
        found = self._client.get_experiment_by_name(_EXPERIMENT)
        if found is None:
            try:
                return str(self._client.create_experiment(_EXPERIMENT, artifact_location=location))
            except MlflowException:  # another run made it just now
                found = self._client.get_experiment_by_name(_EXPERIMENT)
                if found is None:
                    raise
        return str(found.experiment_id)

    def _open_benchmark(self) -> str:
        identity = {"pcd.benchmark": self._run.key, "pcd.stage": "benchmark"}
        identity |= {name: self._run.tags[name] for name in ("pcd.rerun_of", "pcd.part") if name in self._run.tags}
        query = " and ".join(f"tags.`{key}` = '{value}'" for key, value in identity.items())
        # A rerun has the same key as its original, and one tag more.
        runs = self._client.search_runs([self.experiment_id], query)
        same = [run for run in runs if run.data.tags.get("pcd.part") == identity.get("pcd.part")]
        if not same:
            return str(self._create(self._run.name, identity).info.run_id)
        self._client.update_run(same[0].info.run_id, status=RunStatus.to_string(RunStatus.RUNNING))
        return str(same[0].info.run_id)

    def _create(self, name: str, tags: Mapping[str, str]) -> TrackedRun:
        return self._client.create_run(self.experiment_id, tags=dict(tags), run_name=name)

    def _search_children(self) -> Iterator[TrackedRun]:
        token = None
        while True:
            query = f"tags.`mlflow.parentRunId` = '{self.run_id}'"
            page = self._client.search_runs([self.experiment_id], query, max_results=500, page_token=token)
            yield from (run for run in page if "pcd.stage_id" in run.data.tags)
            token = page.token
            if not token:
                return

    def _log_series(self, run_id: str, lines: Sequence[Mapping[str, Any]], name: str) -> None:
        """`name`: a figure that every line has; the last step of it that MLflow knows says what was sent before."""
        series = f"{run_id} {name}"
        if series not in self._sent:
            history = self._client.get_metric_history(run_id, name) if lines else []
            self._sent[series] = max((metric.step for metric in history), default=0)
        fresh = [line for line in lines if line["step"] > self._sent[series]]
        width = max((len(line) for line in fresh), default=1)
        for batch in _batches(fresh, max(1, _MAX_PER_CALL // width)):
            metrics = [
                Metric(name, float(value), int(line["time"] * 1000), int(line["step"]))
                for line in batch
                for name, value in line.items()
                if name not in _NOT_FIGURES
            ]
            if metrics:
                self._client.log_batch(run_id, metrics=metrics)
            self._sent[series] = int(batch[-1]["step"])

    def _set_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        self._client.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])

    def _log_params(self, run_id: str, params: Mapping[str, Any]) -> None:
        logged = self._client.get_run(run_id).data.params  # MLflow refuses to change a parameter, also to its own value
        named = {_FOREIGN_TO_NAMES.sub("_", name)[:250]: value for name, value in params.items()}  # patterns have "*"
        new = [Param(name, str(value)[:6000]) for name, value in named.items() if name not in logged]
        for batch in _batches(new, 100):
            self._client.log_batch(run_id, params=batch)

    def _log_figures(self, run_id: str, figures: Mapping[str, float]) -> None:
        logged = self._client.get_run(run_id).data.metrics
        named = {_FOREIGN_TO_NAMES.sub("_", name): value for name, value in figures.items()}
        now = int(time.time() * 1000)  # at one step and time MLflow would show the largest value, and not the newest
        new = [Metric(name, value, now, 0) for name, value in named.items() if logged.get(name) != value]
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


@contextmanager
def _alone(uri: str) -> Iterator[None]:
    """The first to open a database of our own makes its tables; two at once would break each other's."""
    if not uri.startswith("sqlite:///"):
        yield
        return
    with FileLock(f"{uri.removeprefix('sqlite:///')}.lock"):
        yield


def is_refusal(error: Exception) -> bool:
    """Whether MLflow was there and said no, so that asking again would not help."""
    return isinstance(error, MlflowException) and error.error_code in (
        *("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "PERMISSION_DENIED", "UNAUTHENTICATED"),
        *("RESOURCE_ALREADY_EXISTS", "RESOURCE_DOES_NOT_EXIST", "INVALID_STATE", "CUSTOMER_UNAUTHORIZED"),
    )


def _provenance(folder: Path) -> dict[str, str]:
    """The exact command, from the manifest."""
    manifest = json.loads((folder / "manifest.json").read_text()) if (folder / "manifest.json").exists() else {}
    return {"pcd.command": " ".join(manifest["command"])} if "command" in manifest else {}


def _whole_lines(path: Path) -> list[dict[str, Any]]:
    try:
        text = path.read_text()
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in text.split("\n")[:-1]]


def _first_page(folder: Path) -> str:
    """The summary first: MLflow folds the description behind its first lines."""
    return "\n".join((folder / name).read_text() for name in ("ap_summary.md", "ap_table.md"))


def _batches(items: Sequence[_Item], length: int) -> Iterator[Sequence[_Item]]:
    for start in range(0, len(items), length):
        yield items[start : start + length]


def _flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat
