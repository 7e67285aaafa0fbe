"""A machine for faults: a home, the servers of its runs, and all that must hold after whatever befell them."""

import fcntl
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil
from mlflow import MlflowClient

from pcd.cores import usable_cores
from tests.servers import MlflowServer, PrefectServer

ROOT: Final = Path(__file__).parents[2]
WORKLOAD: Final = Path(__file__).parent / "workload.yaml"
_FOREIGN: Final = ("MLFLOW_TRACKING_URI", "PREFECT_API_URL", "PREFECT_HOME")
_LIMIT_SECONDS: Final = 1800


@dataclass(slots=True)
class World:
    folder: Path
    options: tuple[str, ...] = ()
    """Of every run here, such as --set arms=[random]."""
    prefect: PrefectServer | None = None
    """The user's own server; without, each run has a temporary one."""
    mlflow: MlflowServer | None = None
    """The same; its database is looked into directly."""

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name not in _FOREIGN}
        ours = {
            "PCD_HOME": str(self.home),
            "PCD_LOCKS": str(self.folder / "locks"),
            "OMP_NUM_THREADS": str(usable_cores()),
        }
        if self.prefect is not None:
            ours["PREFECT_API_URL"] = self.prefect.api
        if self.mlflow is not None:
            ours["MLFLOW_TRACKING_URI"] = self.mlflow.address
        return {**kept, **ours}

    # Runs.

    def start(self) -> subprocess.Popen[str]:
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "flows", "run", str(WORKLOAD), *self.options]
        with (self.folder / "told.txt").open("a") as told:
            return subprocess.Popen(
                command, cwd=ROOT, env=self.environment, stdout=told, stderr=subprocess.STDOUT, text=True,
                start_new_session=True,
            )  # fmt: skip

    def run_to_the_end(self, attempts: int = 3) -> int:
        """As somebody would who comes back: the same command, until it is through. Returns how often it was given."""
        for attempt in range(1, attempts + 1):
            if self.start().wait(_LIMIT_SECONDS) == 0:
                return attempt
        raise AssertionError(f"not through after {attempts} runs:\n{self.told[-3000:]}")

    @property
    def told(self) -> str:
        """What the runs have printed."""
        path = self.folder / "told.txt"
        return path.read_text() if path.exists() else ""

    def take_over(self, other: "World", *kinds: str) -> None:
        """The finished stages of these kinds, so that a fault does not wait for them."""
        for kind in kinds:
            shutil.copytree(other.home / "store" / kind, self.home / "store" / kind)

    # Its disk.

    def mount(self, size: str) -> None:
        """Give the home a disk of its own. Raises CalledProcessError where mounting is not permitted."""
        self.home.mkdir(parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(self.home)], check=True)

    def remount(self, option: str) -> None:
        """Such as size=1g, ro or rw."""
        subprocess.run(["mount", "-o", f"remount,{option}", str(self.home)], check=True)

    def unmount(self) -> None:
        if self.home.is_mount():
            subprocess.run(["umount", "-l", str(self.home)], check=False)

    # What there is.

    def processes(self) -> list[psutil.Process]:
        """All that carry this home in their environment: runs, stages, ranks, workers, servers, wardens."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                mine = process.environ().get("PCD_HOME") == str(self.home)
                if mine and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def trainers(self) -> list[psutil.Process]:
        """The processes of stages that run now."""
        found = []
        for process in self.processes():
            with suppress(psutil.Error):
                if any(argument.endswith("spec.json") for argument in process.cmdline()):
                    found.append(process)
        return found

    def folders(self, kind: str) -> list[Path]:
        """Finished stages."""
        return sorted(path.parent for path in (self.home / "store" / kind).glob("[!.]*/manifest.json"))

    def work(self) -> list[Path]:
        return list((self.home / "store").glob("*/.work-*"))

    def steps_done(self) -> int:
        """Of all stages that run or ran."""
        return sum(len(path.read_text().splitlines()) for path in (self.home / "store").glob("*/*/metrics.jsonl"))

    def outcome(self) -> dict[str, Any]:
        """All figures of the finished benchmark, and the hashes of all weights."""
        (table,) = self.folders("aggregate")
        hashes = {}
        for kind in ("pretrain", "finetune"):
            for folder in self.folders(kind):
                manifest = json.loads((folder / "manifest.json").read_text())
                result = json.loads((folder / "result.json").read_text())
                backbone = manifest["files"].get("backbone.safetensors", {}).get("sha256")
                hashes[manifest["stage"]] = result.get("weights_sha256") or backbone
        return {"table": (table / "cells.csv").read_text(), "weights": hashes}

    # What must hold.

    def violations(self, reference: "World") -> list[str]:
        """Everything that is not as it would be had nothing happened."""
        return [
            *(["another outcome than the undisturbed run's"] if self.outcome() != reference.outcome() else []),
            *(f"left in work: {path.name}" for path in self.work()),
            *(f"not closed: {path.name}" for path in (self.home / "active").glob("*")),
            *self.orphans(),
            *self.unsettled(),
            *self.metrics_missing_or_doubled(),
            *self.held_locks(),
        ]

    def orphans(self, seconds: float = 30) -> list[str]:
        """Processes of this home that are still there after a while."""
        end = time.monotonic() + seconds
        while (left := self.processes()) and time.monotonic() < end:
            time.sleep(0.2)
        told = []
        for process in left:
            with suppress(psutil.Error):
                told.append(f"orphan: {' '.join(process.cmdline())[:200]}")
        return told

    def closed_by_itself(self, seconds: float = 90) -> list[str]:
        """What still says that it runs, a while after the run that was struck has ended; the warden closes it."""
        end = time.monotonic() + seconds
        while (found := [*self.orphans(0), *self.unsettled()]) and time.monotonic() < end:
            time.sleep(0.5)
        return found

    def unsettled(self) -> list[str]:
        """Runs that MLflow or Prefect show as running, though nothing runs."""
        found = [
            f"MLflow: {run.info.run_name} is RUNNING" for run in self._mlflow_runs() if run.info.status == "RUNNING"
        ]
        for kind in ("flow_run", "task_run"):
            for name, state in self._prefect(f"select name, state_type from {kind}"):
                if state not in ("COMPLETED", "FAILED", "CANCELLED", "CRASHED"):
                    found.append(f"Prefect: {kind} {name} is {state}")
        return found

    def metrics_missing_or_doubled(self) -> list[str]:
        """Each step that the stages' own files have, once, with its value."""
        found, runs = [], {run.data.tags.get("pcd.stage_id"): run for run in self._mlflow_runs()}
        for kind in ("pretrain", "finetune"):
            for folder in self.folders(kind):
                stage = json.loads((folder / "manifest.json").read_text())["stage"]
                lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
                expected = [(line["step"], line["loss"]) for line in lines]
                if [step for step, _ in expected] != list(range(1, len(lines) + 1)):
                    found.append(f"{stage}: its own file has the steps {[step for step, _ in expected]}")
                history = self._client.get_metric_history(runs[stage].info.run_id, "loss") if stage in runs else []
                if sorted((metric.step, metric.value) for metric in history) != expected:
                    found.append(f"{stage}: MLflow has the steps {sorted(metric.step for metric in history)}")
        return found

    def held_locks(self) -> list[str]:
        found = []
        files = [*(self.home / "store").glob("*/.lock-*"), *(self.folder / "locks").rglob("*")]
        for path in files:
            if path.is_file():
                with path.open("ab") as file:
                    try:
                        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    except BlockingIOError:
                        found.append(f"lock held: {path.name}")
        return found

    @property
    def _client(self) -> MlflowClient:
        folder = self.mlflow.folder if self.mlflow else self.home
        return MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")

    def _mlflow_runs(self) -> list[Any]:
        experiment = self._client.get_experiment_by_name("pcd-benchmarks")
        return list(self._client.search_runs([experiment.experiment_id])) if experiment else []

    def _prefect(self, query: str) -> list[tuple[str, str]]:
        path = (self.prefect.folder if self.prefect else self.home / "prefect") / "prefect.db"
        if not path.exists():
            return []  # struck before there was a server
        with closing(sqlite3.connect(path)) as database:
            if not database.execute("select 1 from sqlite_master where name = 'task_run'").fetchone():
                return []  # its server was killed before it had made its tables
            rows: list[tuple[str, str]] = database.execute(query).fetchall()
        return rows

    def end_all(self) -> None:
        """Every process of this home at once, as when the power fails."""
        for process in self.processes():
            with suppress(psutil.Error):
                process.send_signal(signal.SIGKILL)
