"""MLflow: what the journal and the folders of a run say, said there.

benchmark run                AP table on its first page, figures, environment, data sets
 ├─ data, teacher, …         one child per stage: settings, metrics by step, result, log, system metrics
 └─ finetune: cells          … and AP as plain metrics: bbox/AP, segm/AP, …

Every call may be repeated: runs are found again by their tags, a step is sent once, and what is there already is left
alone. So whoever comes after a crash, or after an hour without MLflow, only has to say it all again.
"""

import json
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from mlflow.entities import Run as TrackedRun
from mlflow.entities import RunStatus
from mlflow.exceptions import MlflowException

from eval.metric_lines import read_metric_lines
from eval.metric_names import HEADLINES
from flows.home import report_path
from flows.journal import Run
from flows.logins import without_login
from flows.tracking.client import alone, open_client
from flows.tracking.registry import BestStudent, best_students, find_version, point_best_at, register_student
from flows.tracking.repeatable import (
    Series,
    flatten,
    log_data,
    log_figures,
    log_files,
    log_params,
    set_tags,
    take_back_tag,
)
from flows.tracking.saved_views import save_cells_view, save_runs_view
from pcd.errors import PCDError

__all__ = ["STATUSES", "Tracker"]

_EXPERIMENT: Final = "pcd-benchmarks"
_LOADS: Final = "system.jsonl"
_TRACKED_FILES: Final[Mapping[str, tuple[str, ...]]] = {
    "teacher": (),
    "data": ("data.json",),
    "pretrain": (
        *("metrics.jsonl", "backbone.safetensors", "MODEL_CARD.md"),
        *("receptive_field.png", "receptive_field.json"),
        *("similarity_maps.png", "similarity_maps.json"),
    ),
    "watch": ("metrics.jsonl",),
    "backbone": ("backbone.safetensors",),
    "finetune": ("metrics.jsonl", "predictions.json"),
    "features": ("metrics.jsonl",),
    "probe": ("metrics.jsonl",),
    "aggregate": (
        *("ap_table.html", "ap_table.md", "ap_table.json", "results.csv", "cells.csv", "arms.csv"),
        *("intervals.csv", "intervals.png", "differences.csv", "mistakes.csv", "mistakes.png"),
        *("ap_by_arm.png", "losses.png", "detections*.png"),
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
        location = Path(run.artifacts).as_uri() if run.tracking_uri.startswith("sqlite:") else None
        try:
            with alone(run.tracking_uri):
                self._client = open_client(run.tracking_uri)
                self.experiment_id = self._open_experiment(location)
                self.run_id = self._open_benchmark()
            self._series = Series(self._client)
            self._children = {child.data.tags["pcd.stage_id"]: child for child in self._search_children()}
        except MlflowException as error:
            reason = without_login(str(error)).splitlines()[0][:200]
            uri = without_login(run.tracking_uri)
            raise PCDError(f"cannot use MLflow at {uri} ({reason}); check MLFLOW_TRACKING_URI") from None

    # The benchmark's own run.

    def start_benchmark(self) -> None:
        settings = dict(self._run.settings)
        if settings.get("overrides"):  # its names are patterns, of which several would become one name of a param
            settings["overrides"] = json.dumps(settings["overrides"])
        log_params(self._client, self.run_id, flatten(settings))
        environment = dict(self._run.environment)
        difference = environment.pop("git_diff", None)
        commit = environment.get("git_commit") or "?"
        set_tags(self._client, self.run_id, {**self._run.tags, "mlflow.source.git.commit": commit})
        self._client.log_dict(self.run_id, self._run.settings, "benchmark.json")
        self._client.log_dict(self.run_id, environment, "environment.json")
        if difference:
            self._client.log_text(self.run_id, difference, "source.diff")

    def log_table(self, folder: Path) -> None:
        """The table on the run's first page, its figures as artifacts, each arm's means by protocol as metrics."""
        log_files(self._client, self.run_id, folder, _TRACKED_FILES["aggregate"])
        set_tags(self._client, self.run_id, {"mlflow.note.content": _first_page(folder)})
        table = json.loads((folder / "ap_table.json").read_text())
        means = {
            f"{row['arm']}/{row['protocol']}/{name.removesuffix(' mean')}": value
            for row in table["arms"]
            for name, value in row.items()
            if name.endswith(" mean") and value is not None
        }
        log_figures(self._client, self.run_id, means)
        headlines = [name for name in means if name.endswith(tuple(HEADLINES))]
        save_cells_view(self._client, self.experiment_id, self._run.name, self.run_id)
        if not self._run.store_part:  # a rerun's figures are judged by its verdict
            save_runs_view(self._client, self.experiment_id, self._run.name, headlines)

    def log_report(self) -> None:
        """The benchmark's page, if there is one."""
        report = report_path(self._run.name, self._run.key, self._run.store_part)
        if report.exists():
            self._client.log_text(self.run_id, report.read_text(), "report.html")

    def new_students(self, table: Path, folders: Mapping[str, Path]) -> Iterator[BestStudent]:
        """The best of each arm that the model registry lacks; those that it has are its best ones from now on.

        A rerun's are its original's.
        """
        settings = self._run.settings
        wanted = settings.get("runtime", {}).get("register_students", True) and settings.get("protocols")
        if not wanted or self._run.store_part or not (table / "ap_table.json").exists():
            return
        protocol = next(iter(settings["protocols"]))
        for student in best_students(self._run.name, protocol, table, self._run.stages, folders):
            version = find_version(self._client, student)
            if version is None:
                yield student
            else:
                point_best_at(self._client, version)

    def register(self, student: BestStudent, model: Path) -> None:
        """`model`: of flows.tracking.student_model.write_student_model."""
        child = self._known(student.stage)
        with alone(self._run.tracking_uri):
            if child is not None and find_version(self._client, student) is None:  # another run may have made it by now
                register_student(self._client, self.experiment_id, child.info.run_id, student, model)

    def end_benchmark(self, status: str, reason: str | None) -> None:
        if reason:
            set_tags(self._client, self.run_id, {"pcd.failure": reason[:5000]})
        else:  # an attempt before this one may have left one
            take_back_tag(self._client, self.run_id, "pcd.failure")
        self._client.set_terminated(self.run_id, STATUSES[status])

    @property
    def url_path(self) -> str:
        """Behind the server's address; MLflow's UI opens the right view only by a link of this form."""
        return f"/#/experiments/{self.experiment_id}/runs/{self.run_id}?workflowType=machine_learning"

    # Its children.

    def is_told(self, stage_id: str) -> bool:
        """Whether this stage's run is there and finished, from an earlier run of the same benchmark."""
        child = self._known(stage_id)
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
        with alone(self._run.tracking_uri):
            child = self._known(stage_id)
            if child is None:
                made = {"pcd.benchmark_run": self.run_id, "pcd.cached": str(cached).lower()}
                child = self._create(stage_id, tags | made | {"mlflow.parentRunId": self.run_id})
                self._children[stage_id] = child
            else:
                self._client.update_run(child.info.run_id, status=RunStatus.to_string(RunStatus.RUNNING))
                set_tags(self._client, child.info.run_id, tags)
        log_params(self._client, child.info.run_id, flatten(stage["settings"]))
        return str(child.info.run_id)

    def log_folder(self, run_id: str, folder: Path) -> None:
        """What a stage's folder has to say by now: figures by step, and the load of the machine meanwhile."""
        lines = read_metric_lines(folder / "metrics.jsonl")
        self._series.log(run_id, lines, "epoch" if lines and "epoch" in lines[0] else "loss")
        self._series.log(run_id, read_metric_lines(folder / _LOADS), "system/cpu_utilization_percentage")

    def log_stage_result(self, run_id: str, stage_id: str, folder: Path) -> None:
        """What the finished stage left: figures that are still missing, result, spec, log, and its own artifacts."""
        kind: str = self._run.stages[stage_id]["kind"]
        self.log_folder(run_id, folder)
        result = json.loads((folder / "result.json").read_text())
        figures = {name: float(value) for name, value in result.items() if isinstance(value, int | float)}
        figures |= {name: value for name, value in result.get("metrics", {}).items() if value is not None}
        log_figures(self._client, run_id, figures)
        said = {f"pcd.{kind}.{name}": value for name, value in result.items() if isinstance(value, str)}
        set_tags(self._client, run_id, {**said, **_provenance(folder)})
        log_files(self._client, run_id, folder, ("spec.json", "result.json", "manifest.json", "log.txt"))
        log_files(self._client, run_id, folder, _TRACKED_FILES[kind])
        if kind in ("teacher", "data"):
            set_tags(self._client, self.run_id, said)
        if kind == "data":
            log_data(self._client, run_id, folder)
            log_data(self._client, self.run_id, folder)

    def log_failure(self, run_id: str, folder: Path, reason: str | None) -> None:
        self.log_folder(run_id, folder)
        log_files(self._client, run_id, folder, ("spec.json", "log.txt"))
        if reason:
            set_tags(self._client, run_id, {"pcd.failure": reason[:5000]})

    def end_stage(self, stage_id: str, status: str) -> None:
        """Nothing, if MLflow has refused to open it."""
        if stage_id not in self._children:
            return
        run_id = self._children[stage_id].info.run_id
        if STATUSES[status] == "FINISHED":  # an attempt before this one may have failed
            take_back_tag(self._client, run_id, "pcd.failure")
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

    def _known(self, stage_id: str) -> TrackedRun | None:
        """Another flow of the same benchmark may have made it since this one began."""
        if stage_id not in self._children:
            for child in self._search_children(f" and tags.`pcd.stage_id` = '{stage_id}'"):
                self._children[stage_id] = child
        return self._children.get(stage_id)

    def _search_children(self, condition: str = "") -> Iterator[TrackedRun]:
        query, token = f"tags.`mlflow.parentRunId` = '{self.run_id}'{condition}", None
        while True:
            page = self._client.search_runs([self.experiment_id], query, max_results=500, page_token=token)
            yield from (run for run in page if "pcd.stage_id" in run.data.tags)
            token = page.token
            if not token:
                return


def _provenance(folder: Path) -> dict[str, str]:
    """The exact command, from the manifest."""
    manifest = json.loads((folder / "manifest.json").read_text()) if (folder / "manifest.json").exists() else {}
    return {"pcd.command": shlex.join(manifest["command"])} if "command" in manifest else {}


def _first_page(folder: Path) -> str:
    """The summary first: MLflow folds the description behind its first lines."""
    return "\n".join((folder / name).read_text() for name in ("ap_summary.md", "ap_table.md"))
