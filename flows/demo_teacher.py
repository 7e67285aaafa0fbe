"""`pcd teachers train-demo`: train the teacher of `demo` and `mini`, and put it where the registry finds it."""

import shutil
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from eval.metric_lines import MetricLine
from flows.home import home
from flows.interrupt import treat_sigterm_as_ctrl_c
from flows.planning.keys import key_of, key_parts
from flows.planning.plan import make_plan
from flows.planning.stages import Stage
from flows.profiles import load_profile
from flows.progress import make_reporter
from flows.store.store import Store
from flows.supervision.stage_command import stage_command, write_spec
from flows.supervision.supervisor import run_process
from pcd.teachers.registry import DEMO_CHECKPOINT, DEMO_RECIPE

__all__ = ["train"]


def train(output: Path | None, changes: dict[str, Any]) -> None:
    """Draw the data of the profile `mini` if the store lacks them, train, and copy checkpoint and recipe to `output`.

    `changes` lie over pcd.teachers.train_demo.DemoTeacherSettings.
    """
    treat_sigterm_as_ctrl_c()
    benchmark = load_profile("mini", ["arms=[random]"])
    store, runtime = Store(home() / "store"), benchmark.runtime
    data = make_plan(benchmark).stages[0]
    settings = {"data": benchmark.data.model_dump(mode="json"), "demo_teacher": changes}
    parts = key_parts(settings, {"data": data.key}, {}, "pcd.teachers.train_demo")
    teacher = Stage(
        id="demo-teacher", kind="teacher", module="pcd.teachers.train_demo", settings=settings,
        inputs={"data": data.id}, key=key_of(parts), parts=parts, labels={},
    )  # fmt: skip
    with make_reporter(Console(file=sys.stdout)) as reporter:

        def compute(number: int, stage: Stage, folder: Path, inputs: dict[str, Path]) -> None:
            def on_metrics(lines: list[MetricLine]) -> None:
                for line in lines:
                    reporter.stage_goes_on(stage, line)

            reporter.stage_starts(number, 2, stage)
            command = stage_command(stage, write_spec(stage, folder, inputs, runtime), runtime)
            run_process(command, folder, on_metrics, stop_seconds=runtime.stop_seconds)

        with store.lock(data):
            drawn = store.find(data)
            if drawn is None:
                compute(1, data, store.work_folder(data), {})
                drawn = store.commit(data, {})
        with store.lock(teacher):
            work = store.work_folder(teacher)
            compute(2, teacher, work, {"data": drawn})
        for place in (DEMO_CHECKPOINT, DEMO_RECIPE):
            shutil.copy(work / place.name, output or place.parent)
        reporter.note(f"{DEMO_CHECKPOINT.name} and its recipe are in {output or DEMO_CHECKPOINT.parent}")
        shutil.rmtree(work)
