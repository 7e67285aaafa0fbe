"""What a student is worth while it is pre-trained, as a stage process beside the pre-training: `python -m eval.watch`.

`runtime.live` is the pre-training's work folder and `runtime.final` where it will lie when it has finished. Each
snapshot of the backbone that appears in either is evaluated by a stage process of its own (`settings.module`, a short
fine-tuning or a probe), in order, until the pre-training has finished and none is left. Its figures go to metrics.jsonl
under the epoch, and into result.json as a curve. The pre-training is only read: it neither waits nor notices.
"""

import json
import math
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

from eval.metric_lines import read_metric_lines
from pcd.errors import PCDError, StageFailedError
from pcd.snapshots import list_snapshots
from pcd.stage import ACTIVITY, EXIT_STOPPED, EXIT_USER_ERROR, Spec, Stopped, run_stage, write_json

__all__ = ["watch"]

_LOOK_EVERY_SECONDS: Final = 1.0
_SIGNS: Final = ("metrics.jsonl", ACTIVITY, "log.txt", "checkpoint*")
"""What an evaluation writes as it goes on."""


def watch(spec: Spec) -> dict[str, Any]:
    """Evaluate every snapshot once; a watch that was interrupted keeps what it has, and goes on."""
    curve: dict[float, dict[str, float | None]] = {}
    logged = _logged_epochs(spec)
    while True:
        watched = _watched(spec)
        is_last_look = (watched / "result.json").exists()  # before the look: what appears in between is met in the next
        snapshots = list(list_snapshots(watched))
        is_last_look &= watched.exists()  # else it moved meanwhile, as it does when the pre-training is done
        for epoch, folder in snapshots:
            if epoch not in curve and _keep(folder, _place(spec, epoch)):
                curve[epoch] = _evaluate(spec, epoch)
                if epoch not in logged:
                    _log(spec, len(curve), epoch, curve[epoch])
        if is_last_look and all(epoch in curve for epoch, _ in snapshots):
            break
        if spec.stop_requested:
            raise Stopped
        spec.activity("waiting for the next snapshot", len(curve), len(curve) + 1)
        time.sleep(_LOOK_EVERY_SECONDS)
    if not curve:
        raise PCDError(
            "the pre-training left no snapshot to watch: it was stored before they were asked for; "
            "compute it anew (pcd run --from its stage), or lower watch.every_epochs"
        )
    return {"curve": [{"epoch": epoch, "metrics": figures} for epoch, figures in sorted(curve.items())]}


def _watched(spec: Spec) -> Path:
    """The pre-training's folder. While it works, what lies at `final` is an older result, computed anew just now."""
    live = Path(spec.runtime["live"])
    return live if live.exists() else Path(spec.runtime["final"])


def _place(spec: Spec, epoch: float) -> Path:
    return spec.out / f"epoch-{epoch:07.2f}"


def _keep(snapshot: Path, out: Path) -> bool:
    """Take the backbone for ourselves, since the pre-training's folder may move meanwhile; False: it just did."""
    if (out / "result.json").exists():
        return True
    out.mkdir(exist_ok=True)
    kept, source = out / "backbone.safetensors", snapshot / "backbone.safetensors"
    try:
        kept.unlink(missing_ok=True)
        try:
            kept.hardlink_to(source)
        except FileNotFoundError:
            raise
        except OSError:  # another file system, or one without links
            shutil.copyfile(source, kept)
    except FileNotFoundError:
        return False
    return True


def _evaluate(spec: Spec, epoch: float) -> dict[str, float | None]:
    """By a process of its own, which resumes what an earlier one began."""
    out = _place(spec, epoch)
    if not (out / "result.json").exists():
        part = {
            "stage": spec.stage, "title": f"{spec.title}, epoch {epoch:g}", "settings": spec.settings["evaluation"],
            "inputs": {"data": str(spec.inputs["data"]), "backbone": str(out)}, "out": str(out),
            "runtime": {k: str(v) if isinstance(v, Path) else v for k, v in spec.runtime.items()},
        }  # fmt: skip
        write_json(out / "spec.json", part)
        _run(spec, epoch, [sys.executable, "-m", spec.settings["module"], str(out / "spec.json")], out)
    (out / "backbone.safetensors").unlink(missing_ok=True)
    metrics: dict[str, float | None] = json.loads((out / "result.json").read_text())["metrics"]
    return metrics


def _run(spec: Spec, epoch: float, command: list[str], out: Path) -> None:
    with (out / "log.txt").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
    asked = False
    seen: dict[str, tuple[int, int]] = {}
    while (code := process.poll()) is None:
        if (signs := _signs(out)) != seen:  # one that hangs must not look alive by our own word
            spec.activity(f"evaluation of epoch {epoch:g}", 0, 1)
            seen = signs
        if spec.stop_requested and not asked:
            process.terminate()
            asked = True
        time.sleep(_LOOK_EVERY_SECONDS / 5)
    if code == EXIT_STOPPED or (asked and code != 0):
        raise Stopped
    if code == EXIT_USER_ERROR:
        raise PCDError(f"epoch {epoch:g}: {(out / 'error.txt').read_text()}")
    if code:
        raise StageFailedError(
            f"the evaluation of epoch {epoch:g} ended with code {code}; its log is {out / 'log.txt'}"
        )


def _signs(out: Path) -> dict[str, tuple[int, int]]:
    found = {}
    for path in (path for pattern in _SIGNS for path in out.glob(pattern)):
        try:
            status = path.stat()
        except FileNotFoundError:  # replaced, or its evaluation has just ended
            continue
        found[path.name] = status.st_size, status.st_mtime_ns
    return found


def _log(spec: Spec, number: int, epoch: float, figures: dict[str, float | None]) -> None:
    """The epoch stands where other stages have their step. MLflow wants that whole: else the snapshot's number does."""
    every, known = float(spec.settings["every_epochs"]), {k: v for k, v in figures.items() if v is not None}
    step, scale = (round(epoch), 1.0) if every.is_integer() else (number, every)
    spec.metrics.log(step, math.ceil(spec.settings["epochs"] / scale), {"epoch": epoch, **known})


def _logged_epochs(spec: Spec) -> set[float]:
    """By an attempt that was interrupted: no figure stands there twice."""
    spec.metrics.drop_after(sys.maxsize)  # less a line that was cut short
    return {line["epoch"] for line in read_metric_lines(spec.metrics.path)}


if __name__ == "__main__":
    sys.exit(run_stage(watch))
