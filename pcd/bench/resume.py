"""What an interruption costs: a short run that is stopped once and goes on, against the same run left alone.

Ours is the interrupted run, so a ratio of 1 would be a free interruption; what it pays is one more process start, one
checkpoint written and one read.
"""

import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from pcd.bench.harness import Row, Skipped, compare_times
from pcd.bench.jpegs import write_jpegs
from pcd.settings import LossSettings, OptimizerSettings, PretrainSettings, StageRuntime, ViewSettings
from pcd.stage import EXIT_STOPPED, write_json
from pcd.teachers.registry import DEMO_CHECKPOINT

__all__ = ["resume_suite"]

_SETTINGS = PretrainSettings(
    epochs=4,
    global_batch=32,
    views=ViewSettings(size=96),
    loss=LossSettings(negatives=65536),
    optimizer=OptimizerSettings(name="adamw", learning_rate=0.001, warmup_epochs=1),
)
_IMAGES = 128


def resume_suite(device: torch.device) -> Iterator[Row | Skipped]:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "pool").mkdir()
        write_jpegs(root / "pool", _IMAGES)
        write_json(root / "data.json", {"pool": "pool"})
        write_json(root / "result.json", {"file": str(DEMO_CHECKPOINT)})
        steps = round(_SETTINGS.epochs * _IMAGES / _SETTINGS.global_batch)
        note = f"{steps} steps of {_SETTINGS.global_batch} images at {_SETTINGS.views.size} px, one stop"
        numbers = iter(range(1000))

        def interrupted() -> None:
            _run(root, next(numbers), device, stop_at=steps // 2)

        def left_alone() -> None:
            _run(root, next(numbers), device, stop_at=None)

        # Each run is a process of its own: there is nothing to warm up.
        cpu = torch.device("cpu")
        yield compare_times("run, stopped once", interrupted, left_alone, cpu, repeats=3, warmup=0, note=note)


def _run(root: Path, number: int, device: torch.device, stop_at: int | None) -> None:
    out, spec = root / f"out{number}", root / f"spec{number}.json"
    write_json(
        spec,
        {
            "stage": "pretrain",
            "title": "bench",
            "settings": {"pretrain": _SETTINGS.model_dump(mode="json"), "teacher": "demo", "seed": 0},
            "inputs": {"teacher": str(root), "data": str(root)},
            "out": str(out),
            "runtime": StageRuntime(
                device="cpu" if device.type == "cpu" else "cuda",
                threads=torch.get_num_threads(),
                workers=0,
                log_every=1,
            ).model_dump(mode="json"),
        },
    )
    command = [sys.executable, "-m", "pcd.train", str(spec)]
    if stop_at is not None:
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            while process.poll() is None and _steps_done(out) < stop_at:
                time.sleep(0.05)
            process.send_signal(signal.SIGTERM)
        if process.returncode != EXIT_STOPPED:
            raise RuntimeError(f"the run ended with code {process.returncode} instead of stopping behind a checkpoint")
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _steps_done(out: Path) -> int:
    metrics = out / "metrics.jsonl"
    lines = metrics.read_text().splitlines() if metrics.exists() else []
    return max((json.loads(line)["step"] for line in lines if line.endswith("}")), default=0)
