"""Cells that were left out, and stages that a rerun shares: where they are looked for. Nothing is computed."""

import io
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from flows.benchmark import _aggregate_what_there_is
from flows.journal import Journal, Run
from flows.left_out import find_left_out
from flows.planning.plan import make_plan
from flows.planning.selection import select
from flows.planning.stages import Plan, Stage
from flows.profiles import load_profile
from flows.progress import Lines
from flows.run_record import NOT_ASKED_FOR
from flows.runner import Runner
from flows.store.store import open_store
from pcd.errors import StageStoppedError
from tests.flows.finished_smoke import CELL, finish


@pytest.fixture
def plan(pcd_home: Path) -> Plan:
    return make_plan(load_profile("smoke"))


def _runner(plan: Plan, home: Path, *, part: str | None = None, share: tuple[str, ...] = ()) -> Runner:
    journal = Journal.begin(Run("1", "smoke", plan.key, "1:1", 1.0, {}, {}, {}, "", ""), home)
    shared = {kind: open_store() for kind in share}
    return Runner(plan, open_store(part), shared, journal, Lines(Console(file=io.StringIO())), {}, set())


def _stage(plan: Plan, stage_id: str) -> Stage:
    return next(stage for stage in plan.stages if stage.id == stage_id)


def test_a_shared_stage_that_the_whole_store_lacks_is_found_in_the_reruns_part(plan: Plan, pcd_home: Path) -> None:
    runner = _runner(plan, pcd_home, part="again", share=("data",))
    own = finish(open_store("again"), plan.stages[0])
    assert runner.bring_about(plan.stages[0])
    assert runner.folders == {"data": own}
    whole = finish(open_store(), plan.stages[0])
    assert runner.bring_about(plan.stages[0])
    assert runner.folders == {"data": whole}


def test_a_shared_stage_that_another_run_computes_is_waited_for(plan: Plan, pcd_home: Path) -> None:
    runner = _runner(plan, pcd_home, part="again", share=("data",))
    runner.stop.set()
    with open_store().lock(plan.stages[0]), pytest.raises(StageStoppedError, match="while another run computed it"):
        runner.bring_about(plan.stages[0])


def test_a_cell_that_was_left_out_counts_with_all_that_the_table_reads(plan: Plan, pcd_home: Path) -> None:
    chosen, _ = select(plan, only=["random.*"])
    store = open_store()
    finish(store, _stage(plan, f"finetune:{CELL}"))
    runner = _runner(chosen, pcd_home)
    runner.folders["data"] = finish(store, plan.stages[0])
    find_left_out(plan, chosen, runner)
    assert list(runner.folders) == ["data"]
    finish(store, _stage(plan, "pretrain:pcd.seed0"))
    find_left_out(plan, chosen, runner)
    assert list(runner.folders) == ["data", f"finetune:{CELL}"]


def test_a_probe_that_was_left_out_counts_only_with_its_pretraining(pcd_home: Path, tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / "set" / split / "cat").mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "set" / split / "cat" / "0.png")
    sets = f"sets={{own: {{kind: classes, folder: {tmp_path / 'set'}}}}}"
    probed = make_plan(load_profile("smoke", ["protocols={near: {base: knn, set: own}}", sets]))
    chosen, _ = select(probed, only=["random.*"])
    store, runner = open_store(), _runner(chosen, pcd_home)
    runner.folders["data:own"] = finish(store, _stage(probed, "data:own"))
    for kind in ("probe", "features"):
        (stage,) = (stage for stage in probed.stages if stage.id.startswith(f"{kind}:pcd"))
        finish(store, stage)
    find_left_out(probed, chosen, runner)
    assert "probe:pcd.near.seed0" not in runner.folders  # the table reads its pre-training, which is gone
    finish(store, _stage(probed, "pretrain:pcd.seed0"))
    find_left_out(probed, chosen, runner)
    assert "probe:pcd.near.seed0" in runner.folders


def test_what_another_run_computes_just_now_is_not_waited_for(plan: Plan, pcd_home: Path) -> None:
    runner = _runner(plan, pcd_home)
    with open_store().lock(plan.stages[0]):
        assert runner.find_if_free(plan.stages[0]) is None
    with open_store().lock(plan.stages[0]):  # one that is there, and only looked at
        folder = finish(open_store(), plan.stages[0])
        assert runner.find_if_free(plan.stages[0]) == folder


def test_without_protocols_a_pretraining_run_that_was_left_out_is_a_hole_unless_it_is_stored(pcd_home: Path) -> None:
    alone = make_plan(load_profile("smoke", ["seeds=[0, 1, 2]", "protocols={}"]))
    chosen, _ = select(alone, only=["pcd.seed0"])
    finish(open_store(), _stage(alone, "pretrain:pcd.seed1"))
    runner = _runner(chosen, pcd_home)
    asked_for = runner.folders["pretrain:pcd.seed0"] = finish(open_store(), _stage(alone, "pretrain:pcd.seed0"))
    told = _aggregate_what_there_is(alone, chosen, runner, {})
    assert told == (asked_for, {"pretrain:pcd.seed2": NOT_ASKED_FOR})
    last = finish(open_store(), _stage(alone, "pretrain:pcd.seed2"))
    assert _aggregate_what_there_is(alone, chosen, runner, {}) == (last, {})
