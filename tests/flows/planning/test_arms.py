"""Arms in a plan: their stages, their keys, what is said of them, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch

from flows.planning.keys import source_files
from flows.planning.plan import make_plan
from flows.planning.stages import Stage
from flows.profiles import load_profile
from flows.settings import Benchmark
from pcd.arms import ARMS
from pcd.arms.weights import SUPERVISED_WEIGHTS
from pcd.errors import PCDError

ALL = f"arms=[{', '.join(ARMS)}]"


@pytest.fixture(scope="module")
def stages() -> dict[str, Stage]:
    """Of the demo with every arm and two seeds."""
    return {stage.id: stage for stage in make_plan(load_profile("demo", [ALL, "seeds=[0, 1]"])).stages}


@pytest.mark.parametrize("arm", ARMS)
def test_an_arms_backbone_comes_from_its_stage(stages: dict[str, Stage], arm: str) -> None:
    expected = {"pretrain": f"pretrain:{arm}.seed1", "external": f"backbone:{arm}", "none": None}[ARMS[arm].kind]
    assert stages[f"finetune:{arm}.shapes_fpn.seed1"].inputs.get("backbone") == expected


@pytest.mark.parametrize("arm", [name for name, arm in ARMS.items() if arm.kind == "pretrain"])
def test_an_arms_settings_reach_its_pretraining(stages: dict[str, Stage], arm: str) -> None:
    pretrain: Any = stages[f"pretrain:{arm}.seed0"].settings["pretrain"]
    assert pretrain["objective"] == ARMS[arm].objective
    assert pretrain["options"] == {name: option.value for name, option in ARMS[arm].options.items()}
    for setting, value in ARMS[arm].changes.items():
        place = pretrain
        for part in setting.split("."):
            place = place[part]
        assert place == value


def test_an_objectives_source_is_in_its_own_key_alone(stages: dict[str, Stage]) -> None:
    with_seed = {stage.id for stage in stages.values() if "pcd/arms/seed.py" in stage.parts["sources"]}
    assert with_seed == {"pretrain:seed.seed0", "pretrain:seed.seed1"}
    sources = stages["pretrain:pcd.seed0"].parts["sources"]
    assert {"pcd/arms/pcd.py", "pcd/loss.py", "pcd/train.py"} <= sources.keys()


def test_no_source_of_a_stage_is_what_is_only_said_of_arms() -> None:
    assert not {"pcd/arms/registry.py", "pcd/arms/weights.py"} & {
        *source_files("pcd.train"),
        *source_files("eval.finetune"),
    }


def test_the_same_backbone_serves_all_seeds(stages: dict[str, Stage]) -> None:
    assert [stage.id for stage in stages.values() if stage.kind == "backbone"] == [
        "backbone:supervised",
        "backbone:teacher",
    ]


def test_the_teachers_own_trunk_is_the_student_of_its_cells(stages: dict[str, Stage]) -> None:
    name = "resnet:basic:2,2,2,2:24,48,96,192"
    assert stages["backbone:teacher"].settings["student"] == name
    assert stages["finetune:teacher.shapes_fpn.seed0"].settings["student"] == name
    assert stages["finetune:pcd.shapes_fpn.seed0"].settings["student"] == "resnet18"


def test_a_teacher_of_torchvisions_shape_bears_torchvisions_name() -> None:
    assert load_profile("paper").student_of("teacher") == "resnet50"


@pytest.mark.parametrize("arm", [name for name in ARMS if name not in ("pcd", "random")])
def test_the_notes_say_what_an_arm_is_and_on_whose_word(stages: dict[str, Stage], arm: str) -> None:
    (note,) = [note for note in stages["aggregate"].settings["notes"] if note.startswith(f"Arm {arm}: ")]
    assert ARMS[arm].source in note
    assert all(departure in note for departure in ARMS[arm].departures)


def test_an_override_departs_from_the_arms_settings() -> None:
    change = 'overrides={"pretrain:seed.*": {"options.teacher_temperature": 0.07, "epochs": 1}}'
    plan = make_plan(load_profile("demo", ["arms=[pcd, seed]", change]))
    settings = next(stage for stage in plan.stages if stage.id == "pretrain:seed.seed0").settings["pretrain"]
    assert (settings["options"], settings["epochs"], settings["objective"]) == (
        {"teacher_temperature": 0.07},
        1,
        "seed",
    )


# ---- the arm supervised


def test_an_own_file_counts_by_its_content_and_torchvisions_by_what_is_published(tmp_path: Path) -> None:
    def key(*overrides: str) -> str:
        plan = make_plan(load_profile("demo", ["arms=[supervised]", *overrides]))
        return next(stage.key for stage in plan.stages if stage.kind == "backbone")

    published, own = key(), tmp_path / "own.pth"
    torch.save({"a": torch.zeros(1)}, own)
    first = key(f"supervised_file={own}")
    moved = own.rename(tmp_path / "moved.pth")
    assert key(f"supervised_file={moved}") == first != published
    torch.save({"a": torch.ones(1)}, moved)
    assert key(f"supervised_file={moved}") not in (first, published)


def test_an_own_file_reaches_its_stage_and_is_named_under_the_table(tmp_path: Path) -> None:
    own = tmp_path / "own.pth"
    own.write_bytes(b"weights")
    plan = make_plan(load_profile("demo", ["arms=[supervised]", f"supervised_file={own}"]))
    (stage,) = [stage for stage in plan.stages if stage.kind == "backbone"]
    assert stage.runtime == {"supervised_file": str(own)}
    assert "from the user's file own.pth" in " ".join(plan.stages[-1].settings["notes"])


def test_a_missing_own_file_is_named_before_anything_runs(tmp_path: Path) -> None:
    plan = make_plan(load_profile("demo", ["arms=[supervised]", f"supervised_file={tmp_path / 'none'}"]))
    (line,) = plan.missing
    assert line.startswith(f"supervised_file {tmp_path / 'none'} cannot be read (No such file")


def test_without_a_pretrained_arm_or_the_teacher_no_teacher_is_fetched() -> None:
    plan = make_plan(load_profile("demo", ["arms=[supervised, random]"]))
    assert "teacher" not in [stage.id for stage in plan.stages]


@pytest.mark.parametrize("student", SUPERVISED_WEIGHTS)
def test_torchvisions_weights_are_named_with_the_hash_that_they_are_served_under(student: str) -> None:
    from torchvision.models import get_model_weights

    weights = SUPERVISED_WEIGHTS[student]
    theirs = get_model_weights(student)["IMAGENET1K_V1"]
    assert weights.url == theirs.url
    assert weights.published_hash is not None
    assert f"-{weights.published_hash.hex_prefix}.pth" in theirs.url
    assert weights.megabytes == pytest.approx(theirs.meta["_file_size"] * 1.048576, rel=0.01)


# ---- what is refused


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["arms=[pdc]"], 'unknown arm "pdc": did you mean "pcd"?'),
        (["arms=[pcd, pcd-no-mhsa]", "pretrain.attention=false"], "the arm pcd-no-mhsa is no other than pcd here"),
        (["arms=[pcd-last-bn]", "teacher=mocov2_r50_200"], "the head of mocov2_r50_200 ends in no BatchNorm"),
        (["arms=[pcd-no-adaptor]", "teacher=sup_r50"], "the head of sup_r50 has no activation to gate"),
        (["arms=[teacher]", "teacher=mocov3_vits"], "mocov3_vits is a vision transformer"),
        (
            ["arms=[teacher]", "protocols={c4_1x: {}}"],
            'mask_rcnn_c4 cannot stand on "resnet:basic:2,2,2,2:24,48,96,192"',
        ),
        (["pretrain.objective=seed"], "pretrain.objective and pretrain.options are the arms' to say"),
        (
            ["arms=[supervised]", "protocols={}", "include=[]"],
            "without protocols and without an arm that is pre-trained there is nothing to do",
        ),
    ],
)
def test_arms_that_cannot_be_meant_are_refused_in_one_line(overrides: list[str], told: str) -> None:
    with pytest.raises(PCDError) as caught:
        load_profile("demo", overrides)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_form_offers_every_arm() -> None:
    arms = Benchmark.model_json_schema()["properties"]["arms"]["items"]
    assert arms["enum"] == list(ARMS)
