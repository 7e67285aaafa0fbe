"""What is remembered of each finished benchmark, so that `pcd run` and `pcd report` find it without any server."""

import json
import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from flows.home import home, tracking_uri
from flows.logins import without_login
from flows.planning.stages import Plan, is_cell
from pcd.errors import PCDError
from pcd.stage import write_json

__all__ = [
    "NOT_ASKED_FOR", "RunRecord", "find_record", "finished_record", "forget_holes", "latest_record", "record_since",
    "write_record",
]  # fmt: skip

_log = logging.getLogger(__name__)

NOT_ASKED_FOR: Final = "not asked for"
"""Why a cell is a hole that `--only` left out: no failure."""


@dataclass(frozen=True, slots=True)
class RunRecord:
    name: str
    key: str
    folder: str
    """Of the last stage: tables and figures, or a backbone where there are no protocols."""
    tracking_uri: str
    """Without the login that it may hold."""
    mlflow_page: str
    prefect_page: str
    finished: float
    """Unix seconds."""
    mlflow_run_id: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    """The whole benchmark, from which it can be run again."""
    stages: dict[str, str] = field(default_factory=dict)
    """Stage id to key: what of the store this run still names."""
    environment: dict[str, Any] = field(default_factory=dict)
    holes: dict[str, str] = field(default_factory=dict)
    """Cells that the table lacks, and why."""
    part: str | None = None
    """Of the store, for a rerun."""

    @property
    def has_table(self) -> bool:
        """False for a benchmark without protocols, which pre-trains and no more."""
        return "aggregate" in self.stages

    @property
    def only(self) -> tuple[str, ...]:
        """The cells that `--only` chose; none where all were asked for."""
        if NOT_ASKED_FOR not in self.holes.values():
            return ()
        return tuple(stage.partition(":")[2] for stage in self.stages if is_cell(stage))


_FIELDS: Final = frozenset(RunRecord.__dataclass_fields__)
"""Another version may have written more."""


def write_record(record: RunRecord) -> None:
    """A whole table takes the place of one with holes, and never the other way round."""
    _folder().mkdir(parents=True, exist_ok=True)
    write_json(_path(record.name, record.key, record.part, bool(record.holes)), asdict(record))
    if not record.holes:
        forget_holes(record)


def forget_holes(record: RunRecord) -> None:
    """Of an attempt after it that failed: the table is whole all the same."""
    _path(record.name, record.key, record.part, has_holes=True).unlink(missing_ok=True)


def find_record(plan: Plan) -> RunRecord | None:
    """The finished run of exactly this benchmark, without holes, in the MLflow that is set now."""
    record = _read(_path(plan.benchmark.name, plan.key, None, has_holes=False))
    if record is None or without_login(record.tracking_uri) != without_login(tracking_uri()):
        return None
    database = Path(record.tracking_uri.removeprefix("sqlite:///"))
    return record if database.exists() or not record.tracking_uri.startswith("sqlite:") else None


def record_since(plan: Plan, moment: float) -> RunRecord | None:
    """What a run of this benchmark left that ended after `moment` (Unix seconds), with holes or without."""
    paths = [_path(plan.benchmark.name, plan.key, None, has_holes) for has_holes in (False, True)]
    records = [record for path in paths if (record := _read(path))]
    return next((record for record in records if record.finished >= moment), None)


def latest_record(name: str | None = None) -> RunRecord | None:
    """The benchmark finished last, of this name or key if one is given; a rerun only by its part's name."""
    records = [record for path in _folder().glob("*.json") if (record := _read(path))]
    matching = [r for r in records if (name == r.part if r.part else name in (None, r.name, r.key, r.key[:12]))]
    return max(matching, key=lambda record: record.finished, default=None)


def finished_record(name: str | None = None) -> RunRecord:
    """The same. Raises PCDError if there is none."""
    record = latest_record(name)
    if record is None:
        known = {r.part or r.name for path in _folder().glob("*.json") if (r := _read(path))}
        what_next = f"there are: {', '.join(sorted(known))}" if known else "run one: pcd run demo"
        raise PCDError(f"no finished benchmark{f' {name}' if name else ''} here; {what_next}")
    return record


def _read(path: Path) -> RunRecord | None:
    """None where there is none, also if another run removes it just now; a damaged one is told and passed over."""
    try:
        content = json.loads(path.read_text())
        return RunRecord(**{name: value for name, value in content.items() if name in _FIELDS})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        _log.warning("%s is no record of a benchmark (%s) and is passed over; remove it", path, error)
        return None


def _path(name: str, key: str, part: str | None, has_holes: bool) -> Path:
    return _folder() / f"{name}-{key[:12]}{f'.{part}' if part else ''}{'.holes' if has_holes else ''}.json"


def _folder() -> Path:
    return home() / "benchmarks"
