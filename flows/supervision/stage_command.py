"""What starts a stage: its spec, and the command that reads it."""

import math
import os
import sys
from pathlib import Path

from flows.home import home
from flows.planning.stages import Stage
from flows.settings import Runtime
from flows.supervision.devices import Devices
from pcd.cores import usable_cores
from pcd.settings import StageRuntime
from pcd.stage import write_json
from pcd.teachers.fetch import MIRROR_VARIABLE

__all__ = ["stage_command", "write_spec"]


def write_spec(
    stage: Stage, work: Path, inputs: dict[str, Path], runtime: Runtime, devices: Devices | None = None
) -> Path:
    """`devices`: what the stage was given; without, the whole machine."""
    alone = max(1, usable_cores() // (runtime.processes if stage.distributed else 1))
    spec = {
        "stage": stage.id,
        "title": stage.id,
        "settings": stage.settings,
        "inputs": {name: str(folder) for name, folder in inputs.items()},
        "out": str(work),
        "runtime": {
            **runtime.model_dump(mode="json", include=set(StageRuntime.model_fields)),
            "threads": runtime.threads or (devices.threads if devices else alone),
            "home": str(home()),
            "teacher_mirror": os.environ.get(MIRROR_VARIABLE),
            **(stage.runtime or {}),
        },
    }
    path = work / "spec.json"
    write_json(path, spec)
    return path


def stage_command(stage: Stage, spec: Path, runtime: Runtime) -> list[str]:
    """What starts the stage, by hand as well."""
    if not stage.distributed or runtime.processes * runtime.nodes == 1:
        return [sys.executable, "-m", stage.module, str(spec)]
    if runtime.nodes == 1:
        meeting = ["--standalone"]
    else:  # every machine runs the same command on the same spec, in a folder that they share; one rank writes
        assert runtime.rendezvous is not None
        meeting = [f"--nnodes={runtime.nodes}", "--rdzv-backend=c10d", f"--rdzv-endpoint={runtime.rendezvous}"]
        meeting += [f"--rdzv-id={stage.key[:12]}"]
    ranks = ["-m", "torch.distributed.run", *meeting, f"--nproc-per-node={runtime.processes}"]
    ranks += [f"--shutdown-timeout={math.ceil(runtime.stop_seconds)}"]  # its own patience with the ranks is 30 s
    return [sys.executable, *ranks, "-m", stage.module, str(spec)]
