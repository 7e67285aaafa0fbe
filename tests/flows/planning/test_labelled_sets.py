"""Sets that protocols name: a data stage of its own for each, and nothing else that changes."""

import json
from pathlib import Path
from typing import Any

import pytest

from flows.planning.input_files import data_files, image_counts
from flows.planning.partial_table import partial_aggregate
from flows.planning.plan import make_plan
from flows.planning.stages import Plan
from flows.profiles import load_profile
from pcd.errors import PCDError
from tests.eval.datasets.conftest import VOC_OBJECT, save_noise, write_voc


@pytest.fixture
def voc(tmp_path: Path, pcd_home: Path) -> Path:
    folder = tmp_path / "VOCdevkit"
    write_voc(folder, 2007, "trainval", {"000005": [("chair", (1, 1, 50, 40), 0)]})
    write_voc(folder, 2012, "trainval", {"2008_000002": [("cat", (1, 1, 20, 30), 0)]})
    write_voc(folder, 2007, "test", {"000001": [("dog", (11, 11, 30, 30), 0)], "000002": []})
    return folder


def plan_on(voc: Path, *overrides: str) -> Plan:
    sets = [
        f"sets.own={json.dumps({'kind': 'voc', 'folder': str(voc)})}",
        "protocols.second={architecture: faster_rcnn_fpn, set: own}",
    ]
    return make_plan(load_profile("demo", [*sets, *overrides]))


def keys(plan: Plan) -> dict[str, str]:
    return {stage.id: stage.key for stage in plan.stages}


def by_id(plan: Plan, stage: str) -> Any:
    return next(one for one in plan.stages if one.id == stage)


def test_a_named_set_has_a_data_stage_of_its_own_that_only_its_protocol_reads(voc: Path) -> None:
    plan = plan_on(voc)
    assert [stage.id for stage in plan.stages if stage.kind == "data"] == ["data", "data:own"]
    read = {stage.id: stage.inputs["data"] for stage in plan.cells}
    assert read == {
        "finetune:pcd.shapes_fpn.seed0": "data", "finetune:pcd.second.seed0": "data:own",
        "finetune:random.shapes_fpn.seed0": "data", "finetune:random.second.seed0": "data:own",
    }  # fmt: skip
    places = {"folder": str(voc), "train_images": str(voc), "val_images": str(voc)}
    assert by_id(plan, "finetune:pcd.second.seed0").runtime == {"data_places": places}
    assert {"data", "data:own"} <= by_id(plan, "aggregate").inputs.keys()
    assert by_id(plan, "aggregate").runtime == {"set_places": {"own": places}}


def test_a_set_leaves_the_keys_of_the_other_protocols_alone(voc: Path) -> None:
    before = keys(make_plan(load_profile("demo", ["protocols.second={architecture: faster_rcnn_fpn}"])))
    after = keys(plan_on(voc))
    changed = {stage for stage in before if before[stage] != after[stage]}
    assert changed == {"finetune:pcd.second.seed0", "finetune:random.second.seed0", "aggregate"}


def test_a_set_that_moved_changes_no_key(voc: Path, tmp_path: Path) -> None:
    before = plan_on(voc)
    after = plan_on(voc.rename(tmp_path / "moved"))
    assert keys(after) == keys(before)
    assert not [stage.id for stage in after.stages if str(tmp_path) in json.dumps(stage.parts)]


def test_changed_annotations_of_the_set_change_what_reads_it(voc: Path) -> None:
    before = keys(plan_on(voc))
    xml = voc / "VOC2007" / "Annotations" / "000005.xml"
    xml.write_text(xml.read_text().replace("chair", "sofas"))
    after = keys(plan_on(voc))
    assert {stage for stage in before if before[stage] != after[stage]} == {
        "data:own", "finetune:pcd.second.seed0", "finetune:random.second.seed0", "aggregate",
    }  # fmt: skip


def test_without_anything_to_read_them_the_benchmarks_own_data_are_not_prepared(voc: Path) -> None:
    plan = plan_on(voc, "arms=[random]", "protocols={second: {architecture: faster_rcnn_fpn, set: own}}")
    assert [stage.id for stage in plan.stages] == ["data:own", "finetune:random.second.seed0", "aggregate"]


def test_a_partial_table_reads_the_sets_of_its_cells_alone(voc: Path) -> None:
    holes = {f"finetune:{arm}.second.seed0": "failed" for arm in ("pcd", "random")}
    partial = partial_aggregate(plan_on(voc), holes)
    assert partial is not None
    assert {name for name in partial.inputs if name.startswith("data")} == {"data"}


def test_what_a_set_lacks_is_named_before_anything_runs(voc: Path, tmp_path: Path) -> None:
    first, second = plan_on(tmp_path / "gone").missing
    assert first.startswith(f"Pascal VOC's folder {tmp_path / 'gone' / 'VOC2007'} does not exist; unpack ")
    assert second.startswith(f"image folder {tmp_path / 'gone'} does not exist; ")


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["protocols.second={set: onw}"], 'protocols.second: unknown set "onw"; did you mean own?'),
        (["sets.own={kind: classes, folder: x}"], 'set "own" is of kind classes; the protocol trains a detector'),
        (["sets.own={kind: voc, folder: x, train: [2007_tran]}"], "train.0: input should be '2007_train', "),
        (["sets.own={kind: voc, folder: x, val: 2007_trainval}"], "train and val name a list twice"),
        (["data={kind: pool, pool: x}"], "protocols.shapes_fpn: `data` is a pool alone; name a labelled set"),
        (['overrides={"finetune:*": {set: own}}'], "the labelled set is the protocol's"),
    ],
)
def test_a_set_that_does_not_fit_is_refused_in_one_line(voc: Path, overrides: list[str], told: str) -> None:
    with pytest.raises(PCDError) as caught:
        plan_on(voc, *overrides)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_lists_that_are_not_the_named_protocols_stand_under_the_table(voc: Path) -> None:
    for train, departs in (("[2007_trainval]", True), ("[2007_trainval, 2012_trainval]", False)):
        changes = [
            f"sets.voc={{kind: voc, folder: '{voc}', train: {train}}}", "protocols={voc_c4_24k: {set: voc}}",
            "pretrain.student=resnet50",
        ]  # fmt: skip
        notes = " ".join(make_plan(load_profile("demo", changes)).stages[-1].settings["notes"])
        assert ("departs from voc_c4_24k: lists 2007_trainval to train" in notes) is departs


def test_images_of_a_set_are_counted_by_its_lists(voc: Path) -> None:
    settings = load_profile("demo", [f"sets.own={json.dumps({'kind': 'voc', 'folder': str(voc)})}"]).sets["own"]
    assert image_counts(settings) == {"pool": 0, "train": 2, "val": 2}


def test_the_hash_of_many_small_files_is_kept_until_one_changes(voc: Path, pcd_home: Path) -> None:
    import os

    settings = load_profile("demo", [f"sets.own={json.dumps({'kind': 'voc', 'folder': str(voc)})}"]).sets["own"]
    for path in voc.rglob("*"):
        os.utime(path, (1e9, 1e9))
    first = data_files(settings).hashes
    kept = json.loads((pcd_home / "hashes.json").read_text())
    kept[f"{voc} voc train"]["sha256"] = "as kept"
    (pcd_home / "hashes.json").write_text(json.dumps(kept))
    assert data_files(settings).hashes == first | {"train": "as kept"}
    xml = voc / "VOC2012" / "Annotations" / "2008_000002.xml"
    xml.write_text(f"<annotation>{VOC_OBJECT.format(name='cow', box=(1, 1, 5, 5), difficult=0)}</annotation>")
    assert data_files(settings).hashes["train"] not in ("as kept", first["train"])


def test_a_pool_alone_is_enough_where_every_protocol_names_a_set(voc: Path, tmp_path: Path) -> None:
    save_noise(tmp_path / "pool" / "1.png", 8, 8, 0)
    pool = f"data={{kind: pool, pool: {tmp_path / 'pool'}}}"
    plan = plan_on(voc, pool, "protocols={second: {architecture: faster_rcnn_fpn, set: own}}")
    assert plan.missing == ()
    assert by_id(plan, "pretrain:pcd.seed0").runtime == {"data_places": {"pool": str(tmp_path / "pool")}}
