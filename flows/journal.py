"""A run that is under way, on disk: what was planned, and what has happened since. MLflow and Prefect are told from it.

$PCD_HOME/active/<id>.json          written once: process, settings, stages
                 <id>.events.jsonl  one line for each thing that happened, the last of a stage says how it stands;
                                    and one when MLflow or Prefect was told all before it

Whoever comes after a crash finds here all that is needed to close the run truthfully (flows.reconcile).
"""

import json
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from flows.planning.stages import Plan

__all__ = ["Event", "Journal", "Outcome", "Run", "StageStatus", "Whom", "describe_stages", "read_journals"]

StageStatus = Literal["running", "cached", "done", "failed", "stopped", "skipped"]
Outcome = Literal["finished", "failed", "stopped", "crashed"]
Whom = Literal["mlflow", "prefect"]


@dataclass(frozen=True, slots=True)
class Run:
    """What does not change while a benchmark runs."""

    id: str
    """Prefect's flow run id."""
    name: str
    key: str
    process: str
    """flows.supervision.processes.identity() of the process that runs it."""
    started: float
    """Unix seconds."""
    settings: dict[str, Any]
    stages: dict[str, dict[str, Any]]
    """Stage id to its kind, key, module, settings, labels and inputs."""
    environment: dict[str, Any]
    tracking_uri: str
    artifacts: str
    """Folder for the artifacts of a database of our own; a server keeps them where it wants."""
    tags: dict[str, str] = field(default_factory=dict)
    """Of the benchmark's own MLflow run: links, what it is a rerun of."""
    store_part: str | None = None
    prefect_api: str = ""
    server: str | None = None
    """Process identity of the temporary Prefect server that lives as long as the run, if there is one."""


@dataclass(frozen=True, slots=True)
class Event:
    """Of a stage, or with `stage` None of the whole run."""

    status: StageStatus | Outcome
    stage: str | None = None
    folder: str | None = None
    """The stage's folder: its work folder until it is finished. Of the run: the folder with its tables, if any."""
    reason: str | None = None
    time: float = 0.0


class Journal:
    """Events may come from several threads; readers see whole ones."""

    def __init__(self, run: Run, path: Path) -> None:
        self.run = run
        self.path = path
        self._writing = threading.Lock()
        self._latest: dict[str | None, Event] = {}
        self._told: set[str] = set()

    @classmethod
    def begin(cls, run: Run, home: Path) -> "Journal":
        path = _folder(home) / f"{run.id}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".part")
        temporary.touch(mode=0o600)  # the addresses of the servers may hold a password
        temporary.write_text(json.dumps(asdict(run), indent=2) + "\n")
        temporary.replace(path)
        return cls(run, path)

    @classmethod
    def read(cls, path: Path) -> "Journal":
        """Raises OSError, ValueError or TypeError if there is no whole record at `path`."""
        journal = cls(Run(**json.loads(path.read_text())), path)
        if journal._events.exists():
            for line in journal._events.read_text().splitlines():
                try:
                    journal._take(json.loads(line))
                except (ValueError, TypeError):  # cut short by a kill
                    continue
        return journal

    def note(
        self, status: StageStatus | Outcome, stage: str | None = None, *, folder: str | None = None,
        reason: str | None = None,
    ) -> None:  # fmt: skip
        """Of a stage, or with none of the run as a whole."""
        self._append(asdict(Event(status, stage, folder, reason, round(time.time(), 3))))

    def mark_told(self, whom: Whom) -> None:
        """Of all that has happened so far: it needs not be told again, unless more happens."""
        self._append({"told": whom})

    def is_told(self, whom: Whom) -> bool:
        with self._writing:
            return whom in self._told

    @property
    def stages(self) -> dict[str, Event]:
        """Each stage that anything is known of, to its latest event."""
        with self._writing:
            return {stage: event for stage, event in self._latest.items() if stage is not None}

    @property
    def outcome(self) -> Event | None:
        with self._writing:
            return self._latest.get(None)

    def forget(self) -> None:
        """All is told; nothing has to be closed any more."""
        self.path.unlink(missing_ok=True)  # first: events without a record are nobody's
        self._events.unlink(missing_ok=True)

    def _append(self, line: dict[str, Any]) -> None:
        with self._writing:
            with self._events.open("a") as file:  # a line of its own, also behind one that was cut
                file.write("\n" + json.dumps(line) + "\n")
            self._take(line)

    def _take(self, line: dict[str, Any]) -> None:
        if "told" in line:
            self._told.add(line["told"])
            return
        event = Event(**line)
        self._latest[event.stage] = event
        self._told.clear()

    @property
    def _events(self) -> Path:
        return self.path.with_suffix(".events.jsonl")


def read_journals(home: Path) -> list[Journal]:
    """Of all runs that are under way or were never closed, the oldest first."""
    found = []
    for path in _folder(home).glob("*.json"):
        try:
            found.append(Journal.read(path))
        except (OSError, ValueError, TypeError):  # closed by another process just now
            continue
    return sorted(found, key=lambda journal: journal.run.started)


def describe_stages(plan: Plan) -> dict[str, dict[str, Any]]:
    names = ("kind", "key", "module", "settings", "labels", "inputs")
    return {stage.id: {name: getattr(stage, name) for name in names} for stage in plan.stages}


def _folder(home: Path) -> Path:
    return home / "active"
