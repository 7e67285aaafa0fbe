"""The contract of a stage process: one spec.json in; metrics.jsonl, checkpoints and result.json out.

A stage knows neither Prefect nor MLflow and can be started by hand: `python -m pcd.train spec.json`. Whoever starts it
reads its exit code (below), and its metrics while it runs. `result.json` appears whole or not at all. A second argument
is another folder to write to, in place of the spec's: `python -m pcd.train <a stored stage>/spec.json again`.
"""

import json
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from pcd.checkpoint_step import SIDECAR
from pcd.cores import usable_cores
from pcd.errors import PCDError
from pcd.os_errors import in_one_line
from pcd.settings import StageRuntime
from pcd.supervised import hold_folder, obey_supervisor

__all__ = [
    "ACTIVITY", "EXIT_STOPPED", "EXIT_USER_ERROR",
    "Finished", "Metrics", "Spec", "Stopped", "read_spec", "remove_needless", "run_stage", "write_json", "write_text",
]  # fmt: skip

EXIT_USER_ERROR: Final = 2
"""The user has to mend something; error.txt holds the line to show. Trying again would not help."""
EXIT_STOPPED: Final = 75
"""Asked to stop, and stopped behind a checkpoint; the same command goes on from there."""

ACTIVITY: Final = "activity.json"
"""What a stage is at where there are no steps to count: {"phase", "done", "total", "time"}; gone when it is done."""

_ACTIVITY_EVERY_SECONDS: Final = 1.0


class Finished(Exception):
    """Raised on every rank when the first one found a result: there is nothing left to do."""


class Stopped(Exception):
    """Raised by a loop after it has saved a checkpoint because `Spec.stop_requested` was true."""


class Metrics:
    """Appends one flat JSON object a line; the reserved keys are `step`, `total` (steps) and `time` (Unix seconds)."""

    def __init__(self, path: Path, is_writer: bool = True) -> None:
        self.path = path
        self._is_writer = is_writer  # of several ranks only the first writes

    def log(self, step: int, total: int, values: Mapping[str, float] | None = None) -> None:
        if self._is_writer:
            line = {"step": step, "total": total, "time": round(time.time(), 3), **(values or {})}
            with self.path.open("a") as file:
                file.write(json.dumps(line) + "\n")

    def drop_after(self, step: int) -> None:
        """Forget what a run wrote behind the checkpoint that is being resumed, so that no step stands there twice."""
        if self._is_writer and self.path.exists():
            kept = [line for line in self.path.read_text().splitlines() if _step_of(line) <= step]
            write_text(self.path, "".join(line + "\n" for line in kept))


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError):  # a line cut short by a kill
        return float("inf")


@dataclass(slots=True)
class Spec:
    """What a stage process is asked to do."""

    stage: str
    title: str
    settings: dict[str, Any]
    inputs: dict[str, Path]
    """Name of each input to the folder that an earlier stage left."""
    out: Path
    runtime: dict[str, Any]
    """What cannot change the result: pcd.settings.StageRuntime, and for the teacher stage where files may come from."""
    metrics: Metrics
    stop_requested: bool = field(default=False)
    found_result: bool = field(default=False)
    """Whether this rank found one when it began; all have to act alike on it (see pcd.distributed.process_group)."""
    _activity: tuple[str, float] = field(default=("", 0.0))

    @property
    def is_first_rank(self) -> bool:
        return os.environ.get("RANK", "0") == "0"

    def request_stop(self) -> None:
        self.stop_requested = True

    def activity(self, phase: str, done: int, total: int) -> None:
        """Tell what the stage is at where it has no steps: `done` of `total` things. Cheap; as often as you like."""
        last_phase, told_at = self._activity
        now = time.monotonic()
        is_news = phase != last_phase or done >= total or now - told_at >= _ACTIVITY_EVERY_SECONDS
        if self.is_first_rank and is_news:
            self._activity = phase, now
            with suppress(OSError):  # a full disk: what matters will say so
                write_json(
                    self.out / ACTIVITY, {"phase": phase, "done": done, "total": total, "time": round(time.time(), 3)}
                )


def read_spec(path: Path, out: Path | None = None) -> Spec:
    """`out` takes the place of the spec's. Raises PCDError if the file is missing or is no spec."""
    try:
        raw = json.loads(path.read_text())
        out = out or Path(raw["out"])
        return Spec(
            stage=raw["stage"],
            title=raw["title"],
            settings=raw["settings"],
            inputs={name: Path(folder) for name, folder in raw["inputs"].items()},
            out=out,
            runtime=_with_defaults(raw["runtime"]),
            metrics=Metrics(out / "metrics.jsonl", os.environ.get("RANK", "0") == "0"),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise PCDError(
            f"{path} is not a stage spec ({type(error).__name__}: {error}); `pcd plan` shows a stage's"
        ) from None


def _with_defaults(runtime: dict[str, Any]) -> dict[str, Any]:
    """What every stage may count on, and whatever else a stage's own reader knows of."""
    common = {name: value for name, value in runtime.items() if name in StageRuntime.model_fields}
    whole = runtime | StageRuntime.model_validate(common).model_dump()
    return whole | {"threads": whole["threads"] or usable_cores()}


def run_stage(main: Callable[[Spec], dict[str, Any]]) -> int:
    """Run `main` on the spec named on the command line, and return the process's exit code."""
    if len(sys.argv) not in (2, 3):
        print(f"usage: python -m {main.__module__} SPEC [FOLDER]", file=sys.stderr)
        return EXIT_USER_ERROR
    spec: Spec | None = None
    try:
        spec = read_spec(Path(sys.argv[1]), *map(Path, sys.argv[2:]))
        spec.out.mkdir(parents=True, exist_ok=True)
        _begin(spec)
        began = time.monotonic()
        result = main(spec)
        if spec.is_first_rank:
            result |= {"seconds": round(time.monotonic() - began, 1), "peak_memory_mb": _peak_memory_mb()}
            write_json(spec.out / "result.json", result)
            remove_needless(spec.out)  # only now: until here it was what a retry needs
        return 0
    except Finished:
        return 0
    except Stopped:
        print("stopped behind a checkpoint", file=sys.stderr)
        return EXIT_STOPPED
    except PCDError as error:
        return _report(spec, str(error))
    except ValidationError as error:  # of a spec that was written by hand: a profile's settings were checked before
        first = error.errors()[0]
        return _report(spec, f"{'.'.join(map(str, first['loc']))}: {first['msg']}; mend it in {sys.argv[1]}")
    except OSError as error:
        if (line := in_one_line(error, spec.out if spec else "")) is None:
            raise
        traceback.print_exc()
        return _report(spec, line)


def _report(spec: Spec | None, line: str) -> int:
    print(f"error: {line}", file=sys.stderr)
    if spec is not None:
        try:
            write_text(spec.out / "error.txt", line)
        except OSError:  # the disk that is full may be this one; the log has the line
            pass
    return EXIT_USER_ERROR


def _begin(spec: Spec) -> None:
    if not obey_supervisor(spec.request_stop):
        raise Stopped
    if spec.is_first_rank and not hold_folder(spec.out, lambda: not spec.stop_requested, lambda: _say_waiting(spec)):
        raise Stopped
    spec.found_result = (spec.out / "result.json").exists()  # it was finished while it was being stopped
    if spec.found_result and os.environ.get("WORLD_SIZE", "1") == "1":
        raise Finished


def _say_waiting(spec: Spec) -> None:
    print(f"waiting: another process still writes to {spec.out}", flush=True)
    spec.activity("waiting for another process to leave the folder", 0, 1)


def remove_needless(out: Path) -> None:
    """What nobody needs any more once there is a result: checkpoints, captures, the line of an earlier error."""
    for pattern in ("checkpoint*.pt", SIDECAR, "nonfinite*.pt", "error.txt", ACTIVITY):
        for path in out.glob(pattern):
            path.unlink(missing_ok=True)


def _peak_memory_mb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def write_json(path: Path, data: Any) -> None:
    write_text(path, json.dumps(data, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write whole or not at all; a device, a pipe or a link is written to as it is, and stays what it is."""
    if path.is_symlink() or (path.exists() and not path.is_file()):
        path.write_text(text)
        return
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(text)
    temporary.replace(path)
