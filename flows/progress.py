"""What a person sees while a benchmark runs: live bars on a terminal, plain lines elsewhere."""

import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from eval.metric_lines import MetricLine
from flows.planning.stages import Plan, Stage
from flows.words import duration

__all__ = ["Bars", "Lines", "Reporter", "describe_plan", "make_reporter"]

_LINE_EVERY_SECONDS: Final = 15
_FEW: Final = 3


class Reporter(Protocol):
    """Told of everything that happens, from several threads; `number` counts stages from 1."""

    def __enter__(self) -> "Reporter": ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def note(self, text: str) -> None: ...
    def stage_starts(self, number: int, of: int, stage: Stage) -> None: ...
    def stage_is_stored(self, number: int, of: int, stage: Stage) -> None: ...
    def stage_goes_on(self, stage: Stage, line: MetricLine) -> None: ...
    def stage_ends(self, stage: Stage, seconds: float, summary: str) -> None: ...
    def stage_fails(self, stage: Stage, what_next: str) -> None: ...


def make_reporter(console: Console) -> Reporter:
    return Bars(console) if console.is_terminal else Lines(console)


def describe_plan(plan: Plan, stored: int) -> str:
    """In a line; of a part of a benchmark, which part."""
    benchmark = plan.benchmark
    counts = (("arm", len(benchmark.arms)), ("protocol", len(benchmark.protocols)), ("seed", len(benchmark.seeds)))
    axes = " x ".join(f"{count} {name}{'s' * (count > 1)}" for name, count in counts)
    done = f"{stored} of {len(plan.stages)} stages in the store"
    whole = len(benchmark.cells)
    if len(plan.ends) < whole:
        names = [stage.id.partition(":")[2] for stage in plan.ends]
        more = [f"{len(names) - _FEW} more"] if len(names) > _FEW else []
        what = "cells" if benchmark.protocols else "pre-training runs"
        chosen = f"{len(names)} of {whole} {what} ({', '.join([*names[:_FEW], *more])})"
        return f"benchmark {benchmark.name}: {chosen}; {done}"
    chosen = "chosen " if benchmark.exclude or benchmark.include else ""
    return f"benchmark {benchmark.name}: {axes} = {len(plan.cells)} {chosen}cells; {done}"


@dataclass(slots=True)
class _Shown:
    """A stage that runs."""

    name: str
    spoke: float
    first: MetricLine | None = None
    bar: TaskID | None = None


class Lines:
    """One line when a stage starts and ends, and one every quarter of a minute in between."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown: dict[str, _Shown] = {}

    def __enter__(self) -> "Lines":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def note(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def stage_starts(self, number: int, of: int, stage: Stage) -> None:
        self._shown[stage.id] = _Shown(f"[{number}/{of}] {stage.id}", time.monotonic())
        self.note(f"{self._shown[stage.id].name}: starts")

    def stage_is_stored(self, number: int, of: int, stage: Stage) -> None:
        self.note(f"[{number}/{of}] {stage.id}: found in the store ({stage.key[:12]})")

    def stage_goes_on(self, stage: Stage, line: MetricLine) -> None:
        shown = self._shown[stage.id]
        shown.first = shown.first or line
        if time.monotonic() - shown.spoke >= _LINE_EVERY_SECONDS:
            shown.spoke = time.monotonic()
            self.note(f"{shown.name}: {_phase(line)}{line['step']}/{line['total']}{_loss(line)}{_left(shown, line)}")

    def stage_ends(self, stage: Stage, seconds: float, summary: str) -> None:
        self.note(f"{self._shown.pop(stage.id).name}: done in {duration(seconds)}{summary}")

    def stage_fails(self, stage: Stage, what_next: str) -> None:
        shown = self._shown.pop(stage.id, None)
        self.note(f"{shown.name if shown else stage.id}: failed; {what_next}")


class Bars(Lines):
    """The same, with a live bar for each stage that runs."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[loss]}"),
            TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), console=console, transient=True,
        )  # fmt: skip

    def __enter__(self) -> "Bars":
        self._progress.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._progress.stop()

    def note(self, text: str) -> None:
        self._progress.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def stage_starts(self, number: int, of: int, stage: Stage) -> None:
        shown = self._shown[stage.id] = _Shown(f"[{number}/{of}] {stage.id}", time.monotonic())
        shown.bar = self._progress.add_task(shown.name, total=None, loss="starting")

    def stage_goes_on(self, stage: Stage, line: MetricLine) -> None:
        bar = self._shown[stage.id].bar
        if bar is not None:
            told = f"{_phase(line)}{_loss(line).lstrip(', ')}"
            self._progress.update(bar, completed=line["step"], total=line["total"], loss=told)

    def stage_ends(self, stage: Stage, seconds: float, summary: str) -> None:
        self._remove_bar(stage)
        super().stage_ends(stage, seconds, summary)

    def stage_fails(self, stage: Stage, what_next: str) -> None:
        self._remove_bar(stage)
        super().stage_fails(stage, what_next)

    def _remove_bar(self, stage: Stage) -> None:
        shown = self._shown.get(stage.id)
        if shown is not None and shown.bar is not None:
            self._progress.remove_task(shown.bar)


def _phase(line: MetricLine) -> str:
    """What is done where it is not training: evaluation, export."""
    return f"{line['phase']} " if "phase" in line else ""


def _loss(line: MetricLine) -> str:
    return f", loss {line['loss']:.3f}" if "loss" in line else ""


def _left(shown: _Shown, now: MetricLine) -> str:
    first = shown.first
    if first is None or first.get("phase") != now.get("phase"):  # another phase has another pace
        shown.first = now
        return ""
    steps, left = now["step"] - first["step"], now["total"] - now["step"]
    return f", {duration((now['time'] - first['time']) / steps * left)} left" if steps > 0 else ""
