"""Estimates: by measurements of equal hardware where there are some, else by defaults that say so."""

import dataclasses
import json
import time
from pathlib import Path

import pytest

from flows.environment import describe_environment
from flows.planning.costs import CostModel, Estimate, remember
from flows.planning.hardware import hardware_here
from flows.planning.measurements import Measurement, read_measurements, write_measurement
from flows.planning.plan import make_plan
from flows.planning.stage_work import circumstances, work_of
from flows.planning.stages import Plan, Stage
from flows.profiles import load_profile
from tests.eval.datasets.conftest import write_voc


@pytest.fixture
def plan(pcd_home: Path) -> Plan:
    return make_plan(load_profile("demo", ["runtime.device=cpu"]))


def _stage(plan: Plan, kind: str) -> Stage:
    return next(stage for stage in plan.stages if stage.kind == kind)


def _estimate(plan: Plan, kind: str, step: int = 0) -> Estimate:
    return CostModel(plan).estimate(_stage(plan, kind), step)


def _measured(plan: Plan, kind: str, step_seconds: float, other: float = 20.0, scale: float = 1.0) -> Measurement:
    """A run of this plan's stage on this machine, or of one with `scale` times its work."""
    work = work_of(_stage(plan, kind), circumstances(plan, on_gpu=False))
    return Measurement(
        kind=kind, hardware=hardware_here(plan.benchmark.runtime).name,
        like=work.like if scale == 1 else work.like | {"batch": -1}, step_gmacs=work.step_gmacs * scale,
        other=work.other * scale, step_seconds=step_seconds, other_seconds=other, peak_memory_mb=777, disk_mb=5,
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["data", "teacher", "pretrain", "finetune", "aggregate"])
def test_without_measurements_every_kind_has_a_default_that_says_so(plan: Plan, kind: str) -> None:
    estimate = _estimate(plan, kind)
    assert estimate.seconds > 0
    assert estimate.memory_mb > 100
    assert (estimate.time_basis, estimate.memory_basis, estimate.measurements) == ("default", "default", 0)


def test_more_processors_take_less_time_by_default(pcd_home: Path) -> None:
    few, many = (
        _estimate(make_plan(load_profile("demo", ["runtime.device=cpu", f"runtime.threads={n}"])), "pretrain")
        for n in (1, 16)
    )
    assert 4 * many.step_seconds < few.step_seconds


def test_a_frozen_backbone_takes_less_time_and_is_not_measured_with_one_that_learns(plan: Plan, pcd_home: Path) -> None:
    learning = make_plan(load_profile("demo", ["protocols.shapes_fpn.freeze_backbone=false"]))
    assert _estimate(plan, "finetune").step_seconds < _estimate(learning, "finetune").step_seconds
    here, there = (work_of(_stage(p, "finetune"), circumstances(p, on_gpu=False)) for p in (plan, learning))
    assert here.like != there.like


def test_a_measured_step_gives_the_time(plan: Plan) -> None:
    write_measurement(_measured(plan, "pretrain", 0.5))
    estimate = _estimate(plan, "pretrain")
    assert estimate.steps == 124
    assert estimate.seconds == pytest.approx(124 * 0.5 + 20)
    assert (estimate.time_basis, estimate.memory_mb, estimate.memory_basis) == ("measured", 777, "measured")


def test_several_measurements_give_their_median_and_range(plan: Plan) -> None:
    for step_seconds in (0.5, 0.25, 1.0):
        write_measurement(_measured(plan, "pretrain", step_seconds))
    estimate = _estimate(plan, "pretrain")
    assert (estimate.low, estimate.seconds, estimate.high) == (124 * 0.25 + 20, 124 * 0.5 + 20, 124 + 20)
    assert estimate.measurements == 3


def test_other_work_is_scaled_and_says_so(plan: Plan) -> None:
    write_measurement(_measured(plan, "pretrain", 0.5, scale=0.5))
    estimate = _estimate(plan, "pretrain")
    assert estimate.step_seconds == pytest.approx(1.0)
    assert (estimate.time_basis, estimate.memory_basis) == ("scaled", "default")


def test_equal_work_goes_before_other_work(plan: Plan) -> None:
    write_measurement(_measured(plan, "pretrain", 9.0, scale=2.0))
    write_measurement(_measured(plan, "pretrain", 0.5))
    assert _estimate(plan, "pretrain").step_seconds == 0.5


def test_the_nearest_work_is_scaled_where_there_is_some_of_all_sizes(plan: Plan) -> None:
    write_measurement(_measured(plan, "pretrain", 0.5, scale=0.001))
    write_measurement(_measured(plan, "pretrain", 0.5, scale=0.5))
    assert _estimate(plan, "pretrain").step_seconds == pytest.approx(1.0)


@pytest.mark.parametrize("other", [{"hardware": "8 x A100"}, {"kind": "finetune"}, {"step_seconds": None}])
def test_what_was_measured_elsewhere_or_of_another_kind_says_nothing(plan: Plan, other: dict[str, object]) -> None:
    write_measurement(dataclasses.replace(_measured(plan, "pretrain", 0.5), **other))  # type: ignore[arg-type]
    assert _estimate(plan, "pretrain").time_basis == "default"


def test_an_interrupted_stage_takes_what_is_left(plan: Plan) -> None:
    write_measurement(_measured(plan, "pretrain", 0.5))
    assert _estimate(plan, "pretrain", step=100).seconds == pytest.approx(24 * 0.5 + 20)


def test_a_larger_batch_on_more_gpus_takes_as_long_and_needs_as_much_memory_each(pcd_home: Path) -> None:
    one, eight = (
        _estimate(
            make_plan(
                load_profile(
                    "paper", [f"runtime.processes={n}", f"pretrain.global_batch={128 * n}", "runtime.device=cuda"]
                )
            ),
            "pretrain",
        )
        for n in (1, 8)
    )
    assert eight.step_seconds == pytest.approx(one.step_seconds)
    assert eight.memory_mb == pytest.approx(one.memory_mb)
    assert eight.steps == pytest.approx(one.steps / 8, rel=0.01)


def test_images_that_cannot_be_counted_are_assumed_and_that_is_said(pcd_home: Path) -> None:
    model = CostModel(make_plan(load_profile("paper")))
    assert (model.images.assumed, model.images.pool) == (True, 1_281_167)


def test_a_stage_that_ran_is_remembered_so_that_the_next_plan_knows(plan: Plan, tmp_path: Path) -> None:
    stage, work = _stage(plan, "pretrain"), tmp_path / "work"
    work.mkdir()
    threads = hardware_here(plan.benchmark.runtime).units
    spec = {"inputs": {"data": str(tmp_path)}, "runtime": {"threads": threads, "compile": False}}
    (work / "spec.json").write_text(json.dumps(spec))
    lines = [{"step": i, "total": 124, "time": 1000 + 3.0 * i} for i in range(1, 6)]
    (work / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    remember(stage, work, describe_environment(), ("cpu0",), time.time())
    estimate = _estimate(plan, "pretrain")
    assert (estimate.time_basis, estimate.step_seconds) == ("measured", 3.0)


@pytest.fixture
def beside(pcd_home: Path, tmp_path: Path) -> tuple[Plan, Stage]:
    """A detector on a set of its own, of two images for evaluation, and drawn `data` with 150; and its stage."""
    voc = tmp_path / "VOCdevkit"
    for year, part, names in ((2007, "trainval", "ab"), (2012, "trainval", "c"), (2007, "test", "de")):
        write_voc(voc, year, part, {name: [("dog", (1, 1, 20, 20), 0)] for name in names})
    own = f"sets.own={json.dumps({'kind': 'voc', 'folder': str(voc)})}"
    detectors = [
        "protocols.first={architecture: faster_rcnn_fpn}",
        "protocols.second={architecture: faster_rcnn_fpn, set: own}",
    ]
    plan = make_plan(load_profile("demo", ["runtime.device=cpu", own, *detectors]))
    return plan, next(stage for stage in plan.stages if stage.id == "finetune:random.second.seed0")


def test_a_detector_on_a_set_of_its_own_is_measured_beside_drawn_data(
    beside: tuple[Plan, Stage], tmp_path: Path
) -> None:
    (plan, stage), work = beside, tmp_path / "work"
    work.mkdir()
    threads = hardware_here(plan.benchmark.runtime).units
    (work / "data.json").write_text(json.dumps({"counts": {"pool": 0, "train": 3, "val": 2}}))
    (work / "spec.json").write_text(json.dumps({"inputs": {"data": str(work)}, "runtime": {"threads": threads}}))
    lines = [{"step": i, "total": 9, "time": 1000 + 3.0 * i} for i in range(1, 6)]
    (work / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    remember(stage, work, describe_environment(), ("cpu0",), time.time())
    estimate = CostModel(plan).estimate(stage)
    assert (estimate.time_basis, estimate.step_seconds) == ("measured", 3.0)


def test_a_set_of_its_own_is_photographs_and_has_its_own_images_beside_drawn_data(beside: tuple[Plan, Stage]) -> None:
    plan, stage = beside
    drawn = next(stage for stage in plan.stages if stage.id == "finetune:random.first.seed0")
    on_drawn, on_own = (work_of(one, circumstances(plan, on_gpu=False)) for one in (drawn, stage))
    assert on_own.step_gmacs > 1.1 * on_drawn.step_gmacs
    assert on_own.memory_mb > on_drawn.memory_mb
    detections = stage.settings["finetune"]["detections_per_image"]
    assert on_drawn.disk_mb - on_own.disk_mb == pytest.approx((150 - 2) * detections * 300 / 1e6)


def test_what_cannot_be_remembered_hinders_nothing(plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file where a folder should be")
    remember(_stage(plan, "finetune"), tmp_path / "none", {}, ("cpu0",), time.time())
    assert read_measurements() == []
