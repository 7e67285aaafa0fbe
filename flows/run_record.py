"""What is remembered of each finished benchmark, so that `pcd run` and `pcd report` find it without any server."""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from flows.home import home, tracking_uri
from flows.plan import Plan
from pcd.stage import write_json

__all__ = ["RunRecord", "find_record", "latest_record", "write_record"]


@dataclass(frozen=True, slots=True)
class RunRecord:
    name: str
    key: str
    folder: str
    """Of the last stage: tables and figures, or a backbone where there are no protocols."""
    tracking_uri: str
    mlflow_page: str
    prefect_page: str
    finished: float
    """Unix seconds."""


def write_record(plan: Plan, folder: Path, uri: str, links: dict[str, str]) -> None:
    record = RunRecord(
        plan.benchmark.name,
        plan.key,
        str(folder),
        uri,
        links["mlflow.page"],
        links["prefect.flow_run_url"],
        time.time(),
    )
    _folder().mkdir(parents=True, exist_ok=True)
    write_json(_folder() / f"{plan.benchmark.name}-{plan.key[:12]}.json", asdict(record))


def find_record(plan: Plan) -> RunRecord | None:
    """The finished run of exactly this benchmark in the MLflow that is set now."""
    path = _folder() / f"{plan.benchmark.name}-{plan.key[:12]}.json"
    record = _read(path) if path.exists() else None
    if record is None or record.tracking_uri != tracking_uri():
        return None
    database = Path(record.tracking_uri.removeprefix("sqlite:///"))
    return record if database.exists() or not record.tracking_uri.startswith("sqlite:") else None


def latest_record(name: str | None = None) -> RunRecord | None:
    """The benchmark finished last, of this name if one is given."""
    records = [_read(path) for path in _folder().glob("*.json")]
    matching = [record for record in records if name in (None, record.name, record.key[:12])]
    return max(matching, key=lambda record: record.finished, default=None)


def _read(path: Path) -> RunRecord:
    return RunRecord(**json.loads(path.read_text()))


def _folder() -> Path:
    return home() / "benchmarks"
