"""Brings one stage of a benchmark about: from the store if it is there, else by its process."""

import json
import shlex
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flows.plan import Plan, Stage
from flows.progress import Reporter
from flows.store import Store
from flows.supervisor import MetricLine, run_process, stage_command, write_spec
from flows.tracking import Tracker

__all__ = ["Runner"]


@dataclass(slots=True)
class Runner:
    plan: Plan
    store: Store
    tracker: Tracker
    reporter: Reporter
    environment: dict[str, Any]
    folders: dict[str, Path] = field(default_factory=dict)
    """Stage id to the folder of the finished stage."""

    def bring_about(self, stage: Stage) -> bool:
        """Leave the stage finished in the store and in MLflow. Returns whether it was there already.

        Raises what flows.supervisor.run_process raises; the work folder then keeps the stage's checkpoints.
        """
        number, of = self.plan.stages.index(stage) + 1, len(self.plan.stages)
        with self.store.lock(stage, lambda: self.reporter.note(f"waiting: another run computes {stage.id}")):
            stored = self.store.find(stage)
            with self.tracker.stage_run(stage, cached=stored is not None) as run_id:
                if stored is None:
                    self.reporter.stage_starts(number, of, stage)
                    stored_now = self._compute(stage, run_id)
                else:
                    self.reporter.stage_is_stored(number, of, stage)
                    stored_now = stored
                self.tracker.log_stage_result(run_id, stage, stored_now)
        self.folders[stage.id] = stored_now
        return stored is not None

    def _compute(self, stage: Stage, run_id: str) -> Path:
        runtime, work = self.plan.benchmark.runtime, self.store.work_folder(stage)
        inputs = {name: self.folders[of] for name, of in stage.inputs.items()}
        command = stage_command(stage, write_spec(stage, work, inputs, runtime), runtime)
        if stage.distributed and runtime.nodes > 1:
            self.reporter.note(
                f"start this on the other {runtime.nodes - 1} machines as well:\n  {shlex.join(command)}"
            )

        # An interruption may have come between reading a line and sending it.
        self.tracker.log_live(run_id, _whole_lines(work / "metrics.jsonl"))

        def on_metrics(lines: list[MetricLine]) -> None:
            for line in lines:
                self.reporter.stage_goes_on(line)
            self.tracker.log_live(run_id, lines)

        began = time.time()
        try:
            run_process(command, work, on_metrics, runtime.stop_seconds)
        except KeyboardInterrupt:
            self.reporter.stage_fails("stopped; the next run goes on from its last checkpoint")
            raise
        except Exception:
            self.reporter.stage_fails(f"its log is {work / 'log.txt'}")
            raise
        seconds = time.time() - began
        record = {"command": command, "seconds": round(seconds, 1), "environment": self.environment}
        folder = self.store.commit(stage, record)
        self.reporter.stage_ends(seconds, _summary(stage, json.loads((folder / "result.json").read_text())))
        return folder


def _whole_lines(metrics: Path) -> list[MetricLine]:
    if not metrics.exists():
        return []
    return [json.loads(line) for line in metrics.read_text().split("\n")[:-1]]


def _summary(stage: Stage, result: dict[str, Any]) -> str:
    match stage.kind:
        case "teacher":
            return (
                f": {result['parameters'] / 1e6:.1f} M parameters, SHA-256 {result['sha256'][:12]}, {result['licence']}"
            )
        case "data":
            return f": {result['pool']} images to pre-train on, {result['train']} + {result['val']} labelled"
        case "pretrain":
            damaged = f", {result['unreadable_images']} images could not be read" if result["unreadable_images"] else ""
            return f": {result['steps']} steps in {result['precision']}, the loss by {result['loss_backend']}{damaged}"
        case "finetune":
            box, mask = result["metrics"]["bbox/AP"], result["metrics"]["segm/AP"]
            matched, difference = result["matched_tensors"], result["feature_difference"]
            proof = f"{matched} backbone tensors matched, features equal to {difference:.0e}"
            return f": box AP {_or_dash(box)}, mask AP {_or_dash(mask)} ({proof})"
        case _:
            return ""


def _or_dash(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"
