import dataclasses
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from flows.planning.keys import canonical_json
from flows.planning.plan import make_plan
from flows.profiles import load_profile
from pcd.errors import PCDError
from pcd.teachers.pins import pin
from pcd.teachers.registry import DEMO_CHECKPOINT, TEACHERS

ROOT = Path(__file__).parents[3]


def _keys(*overrides: str) -> dict[str, str]:
    return {stage.id: stage.key for stage in make_plan(load_profile("demo", overrides)).stages}


def _changed(*overrides: str) -> set[str]:
    return _changed_keys(_keys(), _keys(*overrides))


def _changed_keys(before: dict[str, str], after: dict[str, str]) -> set[str]:
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
    stages = make_plan(load_profile("demo", ["seeds=[0, 1]", "protocols.second={base: fpn_1x}"])).stages
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


@pytest.fixture
def teacher_file(tmp_path: Path) -> Path:
    path = tmp_path / "teacher.pth"
    path.write_bytes(b"weights")
    return path


def test_a_teachers_own_file_counts_by_its_content_alone(teacher_file: Path) -> None:
    first = _keys(f"teacher_file={teacher_file}")
    moved = teacher_file.rename(teacher_file.with_name("moved.pth"))
    assert _keys(f"teacher_file={moved}") == first
    moved.write_bytes(b"other weights")
    assert _changed_keys(first, _keys(f"teacher_file={moved}")) == {
        "teacher", "pretrain:pcd.seed0", "finetune:pcd.shapes_fpn.seed0", "aggregate"
    }  # fmt: skip


def test_a_teachers_own_file_reaches_its_stage_by_its_whole_path(
    teacher_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(teacher_file.parent)
    stages = make_plan(load_profile("demo", [f"teacher_file={teacher_file.name}"])).stages
    assert {stage.id: stage.runtime for stage in stages if stage.runtime} == {
        "teacher": {"teacher_file": str(teacher_file)}
    }


def test_a_missing_teacher_file_is_named_before_anything_runs(tmp_path: Path) -> None:
    (line,) = make_plan(load_profile("demo", [f"teacher_file={tmp_path / 'none'}"])).missing
    assert line.startswith(f"teacher_file {tmp_path / 'none'} cannot be read (No such file")


def test_an_own_file_that_is_the_published_one_changes_no_key(pcd_home: Path) -> None:
    assert _changed(f"teacher_file={DEMO_CHECKPOINT}") == set()


def test_an_own_file_that_is_the_pinned_one_changes_no_key(pcd_home: Path, teacher_file: Path) -> None:
    before = _keys("teacher=mocov3_r50_1000")
    pcd_home.mkdir()
    pin(TEACHERS["mocov3_r50_1000"], hashlib.sha256(b"weights").hexdigest(), 7, "here", pcd_home)
    assert _keys("teacher=mocov3_r50_1000", f"teacher_file={teacher_file}") == before


def test_pinning_a_file_changes_no_key_but_replacing_it_does(pcd_home: Path) -> None:
    before = _keys()
    pcd_home.mkdir()
    pin(TEACHERS["demo"], "0" * 64, 1, "here", pcd_home)
    assert _keys() == before
    pin(TEACHERS["demo"], "1" * 64, 1, "here", pcd_home)
    assert _changed_keys(before, _keys()) == {
        "teacher", "pretrain:pcd.seed0", "finetune:pcd.shapes_fpn.seed0", "aggregate"
    }  # fmt: skip


def test_a_plan_imports_neither_torch_nor_a_server() -> None:
    code = (
        "import sys; from flows.planning.plan import make_plan; from flows.profiles import load_profile; "
        "make_plan(load_profile('demo')); "
        "print([m for m in ('torch', 'timm', 'mlflow', 'prefect', 'detectron2', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_missing_data_of_the_users_own_are_all_named_before_anything_runs() -> None:
    plan = make_plan(load_profile("paper"))
    assert len(plan.missing) == 5
    assert plan.stages[0].missing == plan.missing
    assert "instances_train2017.json does not exist; set data.* to where your data lies" in plan.missing[0]


def test_a_key_is_the_hash_of_the_parts_that_are_shown() -> None:
    for stage in make_plan(load_profile("demo")).stages:
        assert stage.key == hashlib.sha256(canonical_json(stage.parts).encode()).hexdigest()
        assert stage.parts.keys() == {"settings", "inputs", "files", "sources"}


@pytest.mark.parametrize(
    ("profile", "protocols", "told"),
    [
        ("mini", [], ["Protocol shapes_frozen: settings of this profile's own", "; its backbone learns nothing."]),
        ("demo", ["protocols={fpn_1x_frozen: {}}"], ["fpn_1x_frozen: as named", "; its backbone learns nothing."]),
        ("smoke", [], ["Protocol smoke_fpn: settings of this profile's own, by no published recipe."]),
    ],
)
def test_the_notes_tell_a_frozen_backbone(profile: str, protocols: list[str], told: list[str]) -> None:
    notes = " ".join(make_plan(load_profile(profile, protocols)).stages[-1].settings["notes"])
    assert [text for text in told if text not in notes] == []
    assert ("learns nothing" in notes) == ("learns nothing" in told[-1])


def test_the_notes_under_the_table_name_the_teachers_licence() -> None:
    notes = " ".join(make_plan(load_profile("demo")).stages[-1].settings["notes"])
    assert "licence of its weights Apache-2.0" in notes


def test_benchmark_without_protocols_pre_trains_alone() -> None:
    plan = make_plan(load_profile("demo", ["protocols={}", "seeds=[0,1]", "pretrain.student=mobilenet_v3_large"]))
    assert [stage.id for stage in plan.stages] == ["data", "teacher", "pretrain:pcd.seed0", "pretrain:pcd.seed1"]
    assert not plan.has_table


def test_benchmark_without_protocols_and_without_pre_training_is_refused() -> None:
    with pytest.raises(PCDError, match="nothing to do"):
        load_profile("demo", ["protocols={}", "arms=[random]"])


def test_what_is_said_of_a_teacher_changes_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = _keys()
    monkeypatch.setitem(TEACHERS, "demo", dataclasses.replace(TEACHERS["demo"], accuracy="mended", unverified=("x",)))
    assert _changed_keys(before, _keys()) == {"aggregate"} & _changed_keys(before, _keys())


def test_what_a_teacher_is_changes_the_keys_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    before = _keys()
    monkeypatch.setitem(TEACHERS, "demo", dataclasses.replace(TEACHERS["demo"], trunk_prefix="module.base_encoder."))
    assert {"teacher", "pretrain:pcd.seed0"} <= _changed_keys(before, _keys())


def test_share_of_damaged_images_changes_no_key() -> None:
    assert _changed("runtime.max_unreadable_share=0.5") == set()
