"""Supervisors in processes of their own, and the stages below them, for tests that kill them."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from flows.supervision.processes import marked_processes
from tests.conftest import ROOT
from tests.patience import PATIENCE

STAGE = ROOT / "tests" / "flows" / "supervision" / "supervised_stage.py"
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]

SUPERVISOR = """
import sys
from pathlib import Path
from flows.supervision.supervisor import run_process
run_process(sys.argv[3:], Path(sys.argv[1]), lambda lines: None, stop_seconds=float(sys.argv[2]))
"""


def command(work: Path, what: str, ranks: int = 1) -> list[str]:
    """Of a stage that does as it is told (supervised_stage.py), alone or as gloo ranks."""
    spec = {"stage": "pretrain:pcd.seed0", "title": "", "settings": {"do": what}, "inputs": {}, "out": str(work)}
    (work / "spec.json").write_text(json.dumps(spec | {"runtime": {"device": "cpu", "threads": 1}}))
    return [sys.executable, *(TORCHRUN if ranks > 1 else []), str(STAGE), str(work / "spec.json")]


def start_supervisor(work: Path, what: str, *, stop_seconds: float = 20, ranks: int = 1) -> subprocess.Popen[bytes]:
    """In a process of its own, which can be killed; returns once the stage is at work."""
    arguments = [str(work), str(stop_seconds), *command(work, what, ranks)]
    process = subprocess.Popen([sys.executable, "-c", SUPERVISOR, *arguments], cwd=ROOT)
    wait_until(lambda: len(list(work.glob("ready-*"))) == ranks)
    return process


def left(home: Path) -> list[psutil.Process]:
    return marked_processes(lambda environment: "PCD_STAGE" in environment and environment["PCD_HOME"] == str(home))


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
