import json
import subprocess
import sys
from pathlib import Path

import pytest

from flows.plan import make_plan
from flows.profiles import load_profile
from pcd.errors import PCDError

ROOT = Path(__file__).parents[2]


def _keys(*overrides: str) -> dict[str, str]:
    return {stage.id: stage.key for stage in make_plan(load_profile("demo", overrides)).stages}


def _changed(*overrides: str) -> set[str]:
    before, after = _keys(), _keys(*overrides)
    return {stage for stage in before if before[stage] != after[stage]}


def test_the_demo_has_one_chain_of_stages_per_arm() -> None:
    assert list(_keys()) == [
        "data",
        "teacher",
        "pretrain:pcd.seed0",
        "finetune:pcd.shapes_fpn.seed0",
        "finetune:random.shapes_fpn.seed0",
        "aggregate",
    ]


def test_seeds_and_protocols_multiply_cells_and_share_stages() -> None:
    stages = make_plan(load_profile("demo", ["seeds=[0, 1]", "protocols.second={}"])).stages
    kinds = [stage.kind for stage in stages]
    assert {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)} == {
        "data": 1,
        "teacher": 1,
        "pretrain": 2,
        "finetune": 8,
        "aggregate": 1,
    }


def test_a_stage_stands_behind_its_inputs() -> None:
    seen: set[str] = set()
    for stage in make_plan(load_profile("demo", ["seeds=[0, 1]"])).stages:
        assert set(stage.inputs.values()) <= seen
        seen.add(stage.id)


def test_keys_are_the_same_in_another_process() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "flows", "plan", "demo", "--json"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert {stage["id"]: stage["key"] for stage in json.loads(done.stdout)["stages"]} == _keys()


def test_what_cannot_change_a_result_changes_no_key() -> None:
    assert _changed("runtime.workers=3", "runtime.device=cpu", "runtime.log_every=1") == set()


def test_a_pretraining_setting_leaves_the_random_arm_alone() -> None:
    assert _changed("pretrain.epochs=4") == {"pretrain:pcd.seed0", "finetune:pcd.shapes_fpn.seed0", "aggregate"}


def test_a_protocol_setting_leaves_pretraining_alone() -> None:
    assert _changed("protocols.shapes_fpn.iterations=100") == {
        "finetune:pcd.shapes_fpn.seed0",
        "finetune:random.shapes_fpn.seed0",
        "aggregate",
    }


def test_other_data_change_everything_but_the_teacher() -> None:
    assert _changed("data.seed=1") == set(_keys()) - {"teacher"}


def test_without_the_pcd_arm_no_teacher_is_fetched() -> None:
    assert "teacher" not in _keys("arms=[random]")


def test_a_plan_imports_neither_torch_nor_a_server() -> None:
    code = (
        "import sys; from flows.plan import make_plan; from flows.profiles import load_profile; "
        "make_plan(load_profile('demo')); "
        "print([m for m in ('torch', 'timm', 'mlflow', 'prefect', 'detectron2', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_missing_data_of_the_users_own_are_named_before_anything_runs() -> None:
    with pytest.raises(PCDError, match=r"instances_train2017\.json does not exist"):
        make_plan(load_profile("paper"))


def test_the_notes_under_the_table_name_the_teachers_licence() -> None:
    notes = " ".join(make_plan(load_profile("demo")).stages[-1].settings["notes"])
    assert "licence of its weights Apache-2.0" in notes
