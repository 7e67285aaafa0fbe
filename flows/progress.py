"""What a person sees while a benchmark runs: live bars on a terminal, plain lines elsewhere."""

import time
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

from flows.plan import Plan, Stage
from flows.supervisor import MetricLine

__all__ = ["Bars", "Lines", "Reporter", "make_reporter"]

_LINE_EVERY_SECONDS: Final = 15


class Reporter(Protocol):
    """Told of everything that happens; `number` counts stages from 1."""

    def __enter__(self) -> "Reporter": ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def note(self, text: str) -> None: ...
    def stage_starts(self, number: int, of: int, stage: Stage) -> None: ...
    def stage_is_stored(self, number: int, of: int, stage: Stage) -> None: ...
    def stage_goes_on(self, line: MetricLine) -> None: ...
    def stage_ends(self, seconds: float, summary: str) -> None: ...
    def stage_fails(self, what_next: str) -> None: ...


def make_reporter(console: Console) -> Reporter:
    return Bars(console) if console.is_terminal else Lines(console)


def describe_plan(plan: Plan, stored: int) -> str:
    benchmark = plan.benchmark
    counts = (("arm", len(benchmark.arms)), ("protocol", len(benchmark.protocols)), ("seed", len(benchmark.seeds)))
    axes = " x ".join(f"{count} {name}{'s' * (count > 1)}" for name, count in counts)
    done = f"{stored} of {len(plan.stages)} stages in the store"
    return f"benchmark {benchmark.name}: {axes} = {len(plan.cells)} cells; {done}"


class Lines:
    """One line when a stage starts and ends, and one every quarter of a minute in between."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._name = ""
        self._began = self._spoke = 0.0
        self._first: MetricLine | None = None

    def __enter__(self) -> "Lines":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def note(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def stage_starts(self, number: int, of: int, stage: Stage) -> None:
        self._name, self._first = f"[{number}/{of}] {stage.id}", None
        self._began = self._spoke = time.monotonic()
        self.note(f"{self._name}: starts")

    def stage_is_stored(self, number: int, of: int, stage: Stage) -> None:
        self.note(f"[{number}/{of}] {stage.id}: found in the store ({stage.key[:12]})")

    def stage_goes_on(self, line: MetricLine) -> None:
        self._first = self._first or line
        if time.monotonic() - self._spoke >= _LINE_EVERY_SECONDS:
            self._spoke = time.monotonic()
            self.note(f"{self._name}: {line['step']}/{line['total']}{_loss(line)}{_time_left(self._first, line)}")

    def stage_ends(self, seconds: float, summary: str) -> None:
        self.note(f"{self._name}: done in {_duration(seconds)}{summary}")

    def stage_fails(self, what_next: str) -> None:
        self.note(f"{self._name}: failed; {what_next}")


class Bars(Lines):
    """The same, with a live bar for the stage that runs."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[loss]}"),
            TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), console=console, transient=True,
        )  # fmt: skip
        self._bar: TaskID | None = None

    def __enter__(self) -> "Bars":
        self._progress.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._progress.stop()

    def note(self, text: str) -> None:
        self._progress.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def stage_starts(self, number: int, of: int, stage: Stage) -> None:
        self._name = f"[{number}/{of}] {stage.id}"
        self._bar = self._progress.add_task(self._name, total=None, loss="starting")

    def stage_goes_on(self, line: MetricLine) -> None:
        if self._bar is not None:
            self._progress.update(self._bar, completed=line["step"], total=line["total"], loss=_loss(line).lstrip(", "))

    def stage_ends(self, seconds: float, summary: str) -> None:
        self._remove_bar()
        super().stage_ends(seconds, summary)

    def stage_fails(self, what_next: str) -> None:
        self._remove_bar()
        super().stage_fails(what_next)

    def _remove_bar(self) -> None:
        if self._bar is not None:
            self._progress.remove_task(self._bar)
            self._bar = None


def _loss(line: MetricLine) -> str:
    return f", loss {line['loss']:.3f}" if "loss" in line else ""


def _time_left(first: MetricLine, now: MetricLine) -> str:
    steps, left = now["step"] - first["step"], now["total"] - now["step"]
    return f", {_duration((now['time'] - first['time']) / steps * left)} left" if steps > 0 else ""


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"
