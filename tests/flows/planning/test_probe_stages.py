"""Probes in a plan: which features they share, what changes their keys, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from flows.planning.costs import CostModel
from flows.planning.partial_table import partial_aggregate
from flows.planning.plan import make_plan
from flows.planning.plan_report import report_plan
from flows.planning.stages import Plan
from flows.profiles import load_profile
from flows.store.store import open_store
from pcd.errors import PCDError

PROBES = ("linear", "knn", "low_shot_1")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for split, count in (("train", 3), ("val", 1)):
        for name in ("cat", "dog"):
            place = tmp_path / "pictures" / split / name
            place.mkdir(parents=True)
            for number in range(count):
                Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(place / f"{number}.png")
    return tmp_path / "pictures"


def probed(pictures: Path, *overrides: str, protocols: tuple[str, ...] = PROBES) -> Plan:
    sets = f"sets={{imagenet: {{kind: classes, folder: {pictures}}}}}"
    named = ", ".join(f"{name}: {{}}" for name in protocols)
    return make_plan(load_profile("demo", [f"protocols={{{named}}}", sets, *overrides]))


def keys(plan: Plan) -> dict[str, str]:
    return {stage.id: stage.key for stage in plan.stages}


def changed(before: Plan, after: Plan) -> set[str]:
    return {stage for stage, key in keys(before).items() if keys(after)[stage] != key}


def test_all_probes_of_a_backbone_share_its_features(pictures: Path) -> None:
    assert list(keys(probed(pictures))) == [
        "data", "teacher", "pretrain:pcd.seed0", "data:imagenet", "features:pcd.seed0.imagenet",
        "probe:pcd.linear.seed0", "probe:pcd.knn.seed0", "probe:pcd.low_shot_1.seed0",
        "features:random.seed0.imagenet",
        "probe:random.linear.seed0", "probe:random.knn.seed0", "probe:random.low_shot_1.seed0", "aggregate",
    ]  # fmt: skip


def test_crops_of_another_size_are_other_features(pictures: Path) -> None:
    ids = keys(probed(pictures, "protocols.knn.size=96", "arms=[random]"))
    assert {name for name in ids if name.startswith("features")} == {
        "features:random.seed0.imagenet", "features:random.seed0.imagenet.96px"
    }  # fmt: skip


def test_a_probes_setting_leaves_its_features_alone(pictures: Path) -> None:
    before, after = probed(pictures), probed(pictures, "protocols.linear.epochs=50")
    assert changed(before, after) == {"probe:pcd.linear.seed0", "probe:random.linear.seed0", "aggregate"}


def test_a_probe_may_depart_in_one_cell(pictures: Path) -> None:
    after = probed(pictures, 'overrides={"probe:pcd.linear.*": {epochs: 50}}')
    assert changed(probed(pictures), after) == {"probe:pcd.linear.seed0", "aggregate"}


def test_where_the_pictures_lie_changes_no_key_but_reaches_the_features(pictures: Path) -> None:
    before = probed(pictures)
    moved = pictures.rename(pictures.with_name("moved"))
    after = probed(moved)
    assert changed(before, after) == set()
    stage = next(stage for stage in after.stages if stage.kind == "features")
    assert stage.runtime == {
        "data_places": {
            "folder": str(moved), "train_images": str(moved / "train"), "val_images": str(moved / "val")
        }
    }  # fmt: skip


def test_probes_and_detectors_stand_in_one_table(pictures: Path) -> None:
    plan = probed(pictures, "protocols.shapes_fpn.iterations=60", "protocols.shapes_fpn.warmup_iterations=5")
    assert {"finetune:pcd.shapes_fpn.seed0", "probe:pcd.knn.seed0"} <= plan.stages[-1].inputs.keys()
    left = partial_aggregate(plan, {"features:random.seed0.imagenet": "no disk", "finetune:pcd.shapes_fpn.seed0": "no"})
    assert left is not None
    assert [cell["cell"] for cell in left.settings["cells"]] == [
        "pcd.linear.seed0", "pcd.knn.seed0", "pcd.low_shot_1.seed0", "random.shapes_fpn.seed0"
    ]  # fmt: skip
    assert {hole["reason"] for hole in left.settings["holes"]} == {"features:random.seed0.imagenet no disk", "no"}


def test_a_watch_may_probe(pictures: Path) -> None:
    plan = probed(pictures, "watch={protocol: knn, every_epochs: 1}")
    (watch,) = (stage for stage in plan.stages if stage.kind == "watch")
    assert watch.settings["module"] == "eval.probes.probe"
    assert watch.settings["evaluation"]["features"] == {"set": "imagenet", "size": 224}
    assert watch.inputs["data"] == "data:imagenet"
    assert "eval/probes/probe.py" in watch.parts["sources"]
    assert CostModel(plan).estimate(watch).seconds > 0


def test_the_notes_tell_where_a_probe_is_not_its_recipe(pictures: Path) -> None:
    notes = " ".join(probed(pictures, "protocols.linear.learning_rate=10").stages[-1].settings["notes"])
    assert "Protocol linear: departs from linear by learning_rate 10.0 (named: 30.0)" in notes
    assert "without random crops and flips" in notes


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["sets={}"], 'protocols.linear: unknown set "imagenet"'),
        (["sets.imagenet={kind: voc, folder: x}"], "needs a set of kind classes"),
        (["protocols.linear.learning_rat=1"], "unknown setting protocols.linear.learning_rat"),
        (["protocols.linear.epochs=0"], "protocols.linear.epochs: input should be greater than or equal to 1, got 0"),
        (["protocols.mine={kind: lineal}"], "protocols.mine: unknown kind of protocol; valid: detector, linear, knn"),
        (["protocols.linear.world_size=4"], "a probe runs in one process"),
        (['overrides={"finetune:*": {epochs: 5}}'], 'overrides: "finetune:*" matches nothing'),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(pictures: Path, overrides: list[str], told: str) -> None:
    with pytest.raises(PCDError) as caught:
        probed(pictures, *overrides)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_estimates_count_the_sets_images(pictures: Path, pcd_home: Path) -> None:
    report = report_plan(probed(pictures), open_store())
    by_id: dict[str, Any] = {r.stage.id: r for r in report.stages}
    assert by_id["features:pcd.seed0.imagenet"].estimate.steps == 8
    assert by_id["probe:pcd.linear.seed0"].estimate.work_gmacs == pytest.approx(100 * (3 * 6 + 2) * 512_000 / 1e9)


def test_pictures_that_are_missing_are_named_before_anything_runs(tmp_path: Path) -> None:
    assert any(str(tmp_path / "gone") in line for line in probed(tmp_path / "gone").missing)


def test_a_backbone_that_is_brought_has_one_set_of_features_for_all_seeds(pictures: Path) -> None:
    ids = keys(probed(pictures, "arms=[teacher]", "baseline=teacher", "seeds=[0, 1]", protocols=("knn",)))
    assert {name for name in ids if name.startswith(("features", "probe", "backbone"))} == {
        "backbone:teacher", "features:teacher.imagenet", "probe:teacher.knn.seed0", "probe:teacher.knn.seed1"
    }  # fmt: skip
