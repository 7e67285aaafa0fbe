"""heartbeat.json in the work folder of a stage that runs: what `pcd status` shows, written once a second.

Ages are told by the machine's monotonic clock, which all processes share, so that no change of the date ages a stage.
"""

import json
import time
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final

from flows.supervision.processes import identity, is_alive
from pcd.stage import ACTIVITY, write_json

__all__ = ["HEARTBEAT", "Heartbeat", "Pulse", "is_running", "read_heartbeats"]

HEARTBEAT: Final = "heartbeat.json"
_EVERY_SECONDS: Final = 1.0
_RATE_OVER: Final = 20
"""Signs of progress that the rate is taken over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    stage: str
    """Its id, such as finetune:pcd.fpn_1x.seed0."""
    key: str
    supervisor: str
    """Identity of the `pcd` process (see flows.supervision.processes)."""
    process: str
    """Identity of the stage's process, or of the agent that started its ranks."""
    devices: tuple[str, ...] = ()
    phase: str = "starting"
    step: int | None = None
    total: int | None = None
    rate: float | None = None
    """Steps (or whatever the phase counts) a second."""
    eta: float | None = None
    """Seconds that are left of this phase."""
    started: float = 0.0
    """Unix seconds."""
    started_at: float = 0.0
    """Seconds of the monotonic clock."""
    beat: int = 0
    beat_at: float = 0.0
    """Seconds of the monotonic clock."""
    time: float = 0.0
    """Unix seconds, for people."""
    work: Path = field(default=Path(), compare=False)
    """The work folder; not in the file."""

    @property
    def pid(self) -> int:
        return int(self.process.partition(":")[0])

    @property
    def is_alive(self) -> bool:
        """Whether its supervisor is; a dead one's stage is closed by the next run."""
        return is_alive(self.supervisor)

    @property
    def age(self) -> float:
        """Seconds since the last beat of a supervisor that is alive."""
        return max(0.0, time.monotonic() - self.beat_at)


class Pulse:
    """Keeps one stage's heartbeat: told of its metrics, it looks by itself at its activity.json."""

    def __init__(self, work: Path, first: Heartbeat) -> None:
        self.work = work
        self.now = replace(first, started=time.time(), started_at=time.monotonic())
        self._seen: deque[tuple[float, int]] = deque(maxlen=_RATE_OVER)
        self._activity = _signature(work / ACTIVITY)

    def starts(self, pid: int) -> None:
        with suppress(ProcessLookupError):  # ended already
            self.now = replace(self.now, process=identity(pid))
        self.phase("starting")

    def phase(self, name: str) -> None:
        self._progress(name, None, None)
        self.beat(at_once=True)

    def steps(self, lines: Sequence[dict[str, Any]]) -> None:
        if lines:
            self._progress("steps", int(lines[-1]["step"]), int(lines[-1]["total"]))

    def new_activity(self) -> dict[str, Any] | None:
        """If the stage has told another one since: phase, step and total of it, and its time."""
        signature = _signature(self.work / ACTIVITY)
        if signature is None or signature == self._activity:
            return None
        self._activity = signature
        try:
            told = json.loads((self.work / ACTIVITY).read_text())
            phase, done, total = str(told["phase"]), int(told["done"]), int(told["total"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        self._progress(phase, done, total)
        return {"phase": phase, "step": done, "total": total, "time": told.get("time", 0.0)}

    def beat(self, *, at_once: bool = False) -> None:
        """Write the file, if it is time. That it cannot be written is no reason to end a stage."""
        now = time.monotonic()
        if not at_once and now - self.now.beat_at < _EVERY_SECONDS:
            return
        self.now = replace(self.now, beat=self.now.beat + 1, beat_at=now, time=time.time())
        with suppress(OSError):  # a full disk: the stage itself will say so
            write_json(self.work / HEARTBEAT, {k: v for k, v in asdict(self.now).items() if k != "work"})

    def end(self) -> None:
        with suppress(OSError):
            (self.work / HEARTBEAT).unlink(missing_ok=True)

    def _progress(self, phase: str, step: int | None, total: int | None) -> None:
        if phase != self.now.phase or (self._seen and (step or 0) < self._seen[-1][1]):
            self._seen.clear()
        rate = eta = None
        if step is not None and total is not None:
            self._seen.append((time.monotonic(), step))
            (began, first), (now, last) = self._seen[0], self._seen[-1]
            if last > first and now > began:
                rate = (last - first) / (now - began)
                eta = (total - last) / rate
        self.now = replace(self.now, phase=phase, step=step, total=total, rate=rate, eta=eta)


def read_heartbeats(roots: Iterable[Path]) -> list[Heartbeat]:
    """Of all stages that run, or whose supervisor died, in the stores at `roots`; the one started first comes first."""
    found = []
    for root in roots:
        found += [beat for path in root.glob(f"*/.work-*/{HEARTBEAT}") if (beat := _read(path.parent))]
    return sorted(found, key=lambda one: (one.started, one.stage))


def is_running(work: Path) -> bool:
    """Whether a stage is computed in this work folder, by a supervisor that lives."""
    beat = _read(work)
    return beat is not None and beat.is_alive


def _read(work: Path) -> Heartbeat | None:
    """None where there is none: it ended while we were reading, or is of another version."""
    try:
        raw = json.loads((work / HEARTBEAT).read_text())
        known = {k: v for k, v in raw.items() if k in _NAMES}
        return Heartbeat(**known | {"devices": tuple(raw["devices"]), "work": work})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


_NAMES: Final = frozenset(f.name for f in fields(Heartbeat)) - {"work"}


def _signature(path: Path) -> tuple[int, int] | None:
    """Changes with the file; never compared with the clock."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns
