"""Cells and departures: what is in the matrix, under which names, and what is refused."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.planning.matrix import Cell, cells_of, changed
from flows.planning.plan import make_plan
from flows.profiles import load_profile
from flows.settings import Benchmark
from pcd.errors import PCDError
from pcd.settings import PretrainSettings
from tests.conftest import ROOT

TWO_BY_THREE = ["seeds=[0, 1, 2]"]


def _cells(*overrides: str) -> list[str]:
    return [cell.id for cell in load_profile("demo", [*TWO_BY_THREE, *overrides]).cells]


def _stage(stage_id: str, *overrides: str) -> Any:
    plan = make_plan(load_profile("demo", [*TWO_BY_THREE, *overrides]))
    return next(stage for stage in plan.stages if stage.id == stage_id)


def test_excluded_cells_are_left_out_with_what_only_they_need() -> None:
    plan = make_plan(load_profile("demo", [*TWO_BY_THREE, 'exclude=["pcd.*.seed1", "random.*.seed[12]"]']))
    assert [stage.id for stage in plan.stages if stage.kind in ("pretrain", "finetune")] == [
        "pretrain:pcd.seed0",
        "finetune:pcd.shapes_fpn.seed0",
        "pretrain:pcd.seed2",
        "finetune:pcd.shapes_fpn.seed2",
        "finetune:random.shapes_fpn.seed0",
    ]


def test_without_a_pretrained_cell_no_teacher_is_fetched() -> None:
    assert "teacher" not in [stage.id for stage in make_plan(load_profile("demo", ["exclude=[pcd.*]"])).stages]


def test_included_cells_stand_behind_the_product_and_need_no_place_in_its_axes() -> None:
    extra = "include=[{arm: pcd, protocol: shapes_fpn, seed: 7}]"
    assert _cells("arms=[random]", extra)[-2:] == ["random.shapes_fpn.seed2", "pcd.shapes_fpn.seed7"]


def test_an_included_cell_is_not_excluded_again() -> None:
    assert _cells('exclude=["*.seed2"]', "include=[{arm: random, protocol: shapes_fpn, seed: 2}]") == [
        *("pcd.shapes_fpn.seed0", "pcd.shapes_fpn.seed1", "random.shapes_fpn.seed0", "random.shapes_fpn.seed1"),
        "random.shapes_fpn.seed2",
    ]


def test_without_protocols_pretraining_runs_are_the_cells() -> None:
    assert _cells("protocols={}", "exclude=[pcd.seed1]") == ["pcd.seed0", "pcd.seed2"]


def test_a_departure_changes_its_stages_and_those_behind_them_and_no_others() -> None:
    def keys(*overrides: str) -> dict[str, str]:
        return {s.id: s.key for s in make_plan(load_profile("demo", [*TWO_BY_THREE, *overrides])).stages}

    before, after = keys(), keys('overrides={"pretrain:pcd.seed1": {"optimizer.learning_rate": 0.002}}')
    assert {name for name in before if before[name] != after[name]} == {
        "pretrain:pcd.seed1", "finetune:pcd.shapes_fpn.seed1", "aggregate"
    }  # fmt: skip


def test_a_departure_sets_one_setting_of_the_stages_that_its_pattern_names() -> None:
    change = 'overrides={"finetune:random.*": {iterations: 1000}}'
    for cell, iterations in (("random.shapes_fpn.seed1", 1000), ("pcd.shapes_fpn.seed1", 500)):
        assert _stage(f"finetune:{cell}", change).settings["finetune"]["iterations"] == iterations
    plain, departed = (_stage("finetune:random.shapes_fpn.seed0", *c).settings["finetune"] for c in ((), (change,)))
    assert departed | {"iterations": 500} == plain


def test_departures_are_named_under_the_table() -> None:
    notes = "\n".join(
        _stage("aggregate", 'overrides={"finetune:random.*": {iterations: 1000}}', "exclude=[random.*.seed2]").settings[
            "notes"
        ]
    )
    assert "Not on equal terms with the rest: finetune:random.* with iterations 1000." in notes
    assert "Left out by choice: random.*.seed2." in notes


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("exclude=[randm.*]", 'exclude: "randm.*" matches nothing; did you mean random.shapes_fpn.seed'),
        ('exclude=["*"]', "exclude leaves no cell"),
        ("include=[{arm: pcd, protocol: shapes, seed: 9}]", 'unknown protocol "shapes"; did you mean shapes_fpn?'),
        ("include=[{arm: pcd, protocol: shapes_fpn, seed: 1}]", "pcd.shapes_fpn.seed1 is in the matrix already"),
        (
            'overrides={"finetune:random.shapes.seed0": {iterations: 9}}',
            '"finetune:random.shapes.seed0" matches nothing; did you mean finetune:random.shapes_fpn.seed0?',
        ),
        (
            'overrides={"pretrain:*": {optimizer.learning_rat: 1}}',
            "has no setting optimizer.learning_rat; did you mean optimizer.learning_rate?",
        ),
        ('overrides={"*:pcd.*": {iterations: 9}}', "pretrain:pcd.seed0 has no setting iterations"),
        ('overrides={"pretrain:*": {student: resnet50}}', "the student is one for all cells"),
        ('overrides={"pretrain:*": {}}', "changes nothing"),
        ('overrides={"pretrain:*": {epochs: 0}}', "pretrain:pcd.seed0: epochs: Input should be greater than 0"),
        ('overrides={"pretrain:*": {epochs: 0.1}}', "warm-up takes 0.5 of 0.1 epochs"),
        ('overrides={"pretrain:*": {epochs: 3}, "pretrain:*1": {epochs: 4}}', "both set epochs of pretrain:pcd.seed1"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line_with_the_nearest_name(override: str, told: str) -> None:
    with pytest.raises(PCDError) as caught:
        load_profile("demo", [*TWO_BY_THREE, override])
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_settings_are_a_form_for_prefect() -> None:
    schema = json.loads(json.dumps(Benchmark.model_json_schema()))
    assert {"exclude", "include", "overrides"} <= schema["properties"].keys()
    changes = ['overrides={"pretrain:*": {epochs: 3}}', "include=[{arm: random, protocol: shapes_fpn, seed: 9}]"]
    benchmark = load_profile("demo", changes)
    assert Benchmark.model_validate_json(benchmark.model_dump_json()) == benchmark


def test_ids_and_keys_are_the_same_in_another_process_elsewhere_with_other_hashes(tmp_path: Path) -> None:
    overrides = ['overrides={"finetune:*": {iterations: 90, batch: 4}}', "exclude=[random.*.seed1]", "seeds=[0, 1]"]
    code = (
        "import json, sys; from flows.planning.plan import make_plan; from flows.profiles import load_profile; "
        "print(json.dumps([(s.id, s.key) for s in make_plan(load_profile('demo', json.loads(sys.argv[1]))).stages]))"
    )
    expected = [[stage.id, stage.key] for stage in make_plan(load_profile("demo", overrides)).stages]
    environment = os.environ | {"PYTHONHASHSEED": "7", "PYTHONPATH": str(ROOT), "PCD_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(overrides)],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout) == expected


ARMS = st.lists(st.sampled_from(["pcd", "random"]), min_size=1, unique=True)
PROTOCOLS = st.lists(st.from_regex(r"[a-z0-9][a-z0-9_-]{0,5}", fullmatch=True), min_size=1, max_size=3, unique=True)
SEEDS = st.lists(st.integers(0, 30), min_size=1, max_size=4, unique=True)


@given(arms=ARMS, protocols=PROTOCOLS, seeds=SEEDS, data=st.data())
def test_ids_are_unique_and_exclusions_and_inclusions_hold(
    arms: list[str], protocols: list[str], seeds: list[int], data: st.DataObject
) -> None:
    whole = cells_of(arms, protocols, seeds)
    ids = [cell.id for cell in whole]
    assert len(set(ids)) == len(ids) == len(arms) * len(protocols) * len(seeds)
    out = data.draw(st.lists(st.sampled_from(ids), max_size=len(ids) - 1, unique=True))
    new = st.builds(Cell, st.sampled_from(["pcd", "random"]), st.sampled_from(protocols), st.integers(31, 99))
    extra = data.draw(st.lists(new, max_size=3, unique=True))
    chosen = [cell.id for cell in cells_of(arms, protocols, seeds, out, extra)]
    assert chosen == [one for one in ids if one not in out] + [cell.id for cell in extra]
    assert len(set(chosen)) == len(chosen)


@given(epochs=st.integers(11, 10**6), seeds=st.lists(st.integers(0, 9), min_size=1, max_size=5, unique=True))
def test_a_departure_reaches_the_stages_that_its_patterns_match_whatever_their_order(
    epochs: int, seeds: list[int]
) -> None:
    patterns = {f"pretrain:pcd.seed{seed}": {"epochs": epochs, "views.size": 96} for seed in seeds}
    backwards = dict(reversed(patterns.items()))
    for seed in range(10):
        stage, plain = f"pretrain:pcd.seed{seed}", PretrainSettings()
        found = PretrainSettings.model_validate(changed(plain, patterns, stage))
        views = plain.views.model_copy(update={"size": 96})
        departed = plain.model_copy(update={"epochs": float(epochs), "views": views})
        assert found == (departed if seed in seeds else plain)
        assert changed(plain, backwards, stage) == changed(plain, patterns, stage)
