"""In which order stages begin, by threads in place of Prefect's tasks."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from flows.planning.plan import make_plan
from flows.planning.stages import Plan, Stage
from flows.profiles import load_profile
from flows.scheduler import bring_all_about
from tests.patience import PATIENCE


@dataclass
class _Runner:
    """What the scheduler asks of a Runner; its stages end when they are told to."""

    plan: Plan
    folders: dict[str, Path] = field(default_factory=dict)
    begun: dict[str, Path] = field(default_factory=dict)
    on_begin: Callable[[], None] = lambda: None
    told: list[str] = field(default_factory=list)
    stops: dict[str, threading.Event] = field(default_factory=dict)
    most_at_once: int = 0
    at_work: set[str] = field(default_factory=set)
    act: dict[str, Callable[[], None]] = field(default_factory=dict)

    journal = property(lambda self: self)
    reporter = property(lambda self: self)

    def note(self, *what: str, **why: str) -> None:
        self.told.append(" ".join([*what, *why.values()]))

    def stop_of(self, stage: Stage) -> threading.Event:
        return self.stops.setdefault(stage.id, threading.Event())

    def bring_about(self, stage: Stage) -> None:
        self.begun[stage.id] = Path()
        self.at_work.add(stage.id)
        self.most_at_once = max(self.most_at_once, sum(not s.startswith("watch") for s in self.at_work))
        self.on_begin()
        try:
            self.act.get(stage.id, lambda: None)()
            self.folders[stage.id] = Path()
        finally:
            self.at_work.discard(stage.id)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as threads:
        yield threads


@pytest.fixture
def run(pool: ThreadPoolExecutor) -> Callable[..., tuple[_Runner, dict[str, Exception]]]:
    def start(act: Callable[[_Runner], dict[str, Any]] = lambda _: {}, parallel: int = 1) -> Any:
        changes = ["arms=[pcd,random]", "watch.protocol=smoke_fpn", f"runtime.parallel={parallel}"]
        runner = _Runner(make_plan(load_profile("smoke", changes)))
        runner.act = act(runner)

        def submit(stage: Stage) -> "Future[None]":
            future = pool.submit(runner.bring_about, stage)
            future.__class__ = _TaskFuture
            return future

        return runner, bring_all_about(runner.plan, runner, submit)  # type: ignore[arg-type]

    return start


class _TaskFuture(Future[None]):
    def result(self, timeout: float | None = None, raise_on_failure: bool = True) -> Any:
        return self.exception(timeout)


Run = Callable[..., tuple[_Runner, dict[str, Exception]]]


def _fail() -> None:
    raise ValueError("it went wrong")


def test_all_stages_come_about_and_no_more_at_once_than_allowed(run: Run) -> None:
    runner, failures = run()
    assert failures == {}
    assert runner.folders.keys() == {stage.id for stage in runner.plan.stages}
    assert runner.most_at_once == 1


def test_a_watch_begins_while_its_training_goes_on_and_takes_nobodys_place(run: Run) -> None:
    watched = threading.Event()

    def train() -> None:
        assert watched.wait(PATIENCE)

    runner, failures = run(lambda _: {"pretrain:pcd.seed0": train, "watch:pcd.seed0": watched.set})
    assert failures == {}
    assert runner.most_at_once == 1


def test_a_watch_that_fails_is_told_and_is_no_failure_of_the_run(run: Run) -> None:
    runner, failures = run(lambda _: {"watch:pcd.seed0": _fail})
    assert failures == {}
    assert "aggregate" in runner.folders
    assert "watch:pcd.seed0 failed, and nothing waits for it: it went wrong" in runner.told


def test_a_watch_is_stopped_when_its_training_has_failed(run: Run) -> None:
    watched = threading.Event()

    def act(runner: _Runner) -> dict[str, Callable[[], None]]:
        stop = runner.stops.setdefault("watch:pcd.seed0", threading.Event())

        def train() -> None:
            assert watched.wait(PATIENCE)
            _fail()

        def watch() -> None:
            watched.set()
            assert stop.wait(PATIENCE)
            _fail()

        return {"pretrain:pcd.seed0": train, "watch:pcd.seed0": watch}

    runner, failures = run(act)
    assert failures.keys() == {"pretrain:pcd.seed0"}
    assert "finetune:random.smoke_fpn.seed0" in runner.folders


def test_a_watch_that_was_stopped_for_a_second_attempt_begins_again_with_it(run: Run) -> None:
    watched, again = threading.Event(), threading.Event()

    def act(runner: _Runner) -> dict[str, Callable[[], None]]:
        stop = runner.stops.setdefault("watch:pcd.seed0", threading.Event())

        def train() -> None:
            assert watched.wait(PATIENCE)
            runner.begun.pop("pretrain:pcd.seed0")  # the first attempt failed
            stop.set()
            end = time.monotonic() + PATIENCE
            while stop.is_set():  # until the scheduler has put the watch back
                assert time.monotonic() < end
                time.sleep(0.01)
            runner.begun["pretrain:pcd.seed0"] = Path()
            runner.on_begin()
            assert again.wait(PATIENCE)

        def watch() -> None:
            if watched.is_set():
                again.set()
                return
            watched.set()
            assert stop.wait(PATIENCE)
            _fail()

        return {"pretrain:pcd.seed0": train, "watch:pcd.seed0": watch}

    runner, failures = run(act)
    assert failures == {}
    assert "watch:pcd.seed0" in runner.folders


def test_stages_behind_a_failed_one_are_skipped(run: Run) -> None:
    runner, failures = run(lambda _: {"pretrain:pcd.seed0": _fail})
    assert failures.keys() == {"pretrain:pcd.seed0"}
    assert any(line.startswith("skipped finetune:pcd.smoke_fpn.seed0") for line in runner.told)
