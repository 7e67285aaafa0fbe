"""`pcd data check`, and `--data FOLDER`: a set of the user's own, looked at and fine-tuned on."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from flows.cli import main
from flows.commands.own_set import set_name, with_own_set
from flows.planning.plan import make_plan
from flows.supervision.stage_command import stage_command, write_spec
from pcd.errors import PCDError
from tests.conftest import ROOT, Pcd
from tests.eval.datasets.conftest import save_noise, write_voc
from tests.patience import PATIENCE


def write_own(folder: Path, **changes: Any) -> dict[str, Any]:
    """Six training images of 96 x 64 pixels with two boxed and masked objects each, two evaluation images."""
    coco: dict[str, Any] = {}
    for split, images in (("train", 6), ("val", 2)):
        coco = {"images": [], "annotations": [], "categories": [{"id": 4, "name": "cell"}, {"id": 9, "name": "core"}]}
        for number in range(1, images + 1):
            save_noise(folder / split / f"{number}.png", 96, 64, number + len(split))
            coco["images"].append({"id": number, "file_name": f"{number}.png", "width": 96, "height": 64})
            for category, (x, y, side) in ((4, (5, 5, 40)), (9, (60, 20, 12))):
                coco["annotations"].append({
                    "id": len(coco["annotations"]) + 1, "image_id": number, "category_id": category, "iscrowd": 0,
                    "bbox": [x, y, side, side], "area": side * side,
                    "segmentation": [[x, y, x + side, y, x + side, y + side, x, y + side]],
                })  # fmt: skip
        (folder / f"{split}.json").write_text(json.dumps(coco | changes))
    return coco


@pytest.fixture
def own(tmp_path: Path, pcd_home: Path) -> Path:
    folder = tmp_path / "My Set"
    write_own(folder)
    return folder


def pcd_here(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def test_a_sound_folder_is_described(own: Path) -> None:
    done = pcd_here("data", "check", str(own))
    assert done.exit_code == 0
    assert done.output.splitlines() == [
        "my-set (coco)",
        "  train: 6 images of 64 x 96 pixels (median sides), 12 objects",
        "  val: 2 images of 64 x 96 pixels (median sides), 4 objects",
        "  2 categories: cell 6 + 2, core 6 + 2",
        "  objects of the training: 5 % below 12 pixels, half below 26, 95 % below 40",
        "  would fit better than the protocol's: train_sizes [96, 128], test_size 128, max_size 224",
        "  nothing wrong was found",
    ]


def test_what_is_wrong_ends_in_exit_code_1(own: Path) -> None:
    (own / "val" / "2.png").unlink()
    (own / "train" / "3.png").unlink()
    done = pcd_here("data", "check", str(own))
    assert done.exit_code == 1
    assert [line.split(": ")[0] for line in done.output.splitlines()] == ["my-set (coco)", "  FAULT", "  FAULT"]


def test_sets_of_a_profile_are_all_checked(own: Path, tmp_path: Path) -> None:
    write_voc(tmp_path / "VOCdevkit", 2007, "trainval", {"1": [("dog", (1, 1, 9, 9), 0)]})
    sets = {
        "cells": {"kind": "coco"} | {f"{s}_{what}": str(own / f"{s}{end}") for s in ("train", "val")
                                     for what, end in (("images", ""), ("annotations", ".json"))},
        "voc": {"kind": "voc", "folder": str(tmp_path / "VOCdevkit")},
    }  # fmt: skip
    done = pcd_here("data", "check", "demo", "--set", f"sets={json.dumps(sets)}", "--json")
    found = json.loads(done.output)
    assert done.exit_code == 1
    assert (found["cells"]["faults"], found["cells"]["facts"]["val"]["objects"]) == ([], 4)
    assert len(found["voc"]["faults"]) == 1
    assert "VOC2012 does not exist" in found["voc"]["faults"][0]


def test_a_profile_without_own_sets_has_nothing_to_check() -> None:
    done = pcd_here("data", "check", "demo")
    assert (done.exit_code, done.output) == (
        2, "error: demo has no labelled set of your own to check; the shapes are drawn\n"
    )  # fmt: skip


def test_protocols_take_the_set_and_sizes_that_fit_it(own: Path) -> None:
    benchmark, lines = with_own_set("smoke", ["protocols.smoke_fpn.anchor_sizes=[48, 96, 192]"], own)
    protocol = benchmark.protocols["smoke_fpn"]
    assert protocol.set == "my-set"
    assert protocol.anchor_sizes == (48, 96, 192)  # as the user said
    assert benchmark.sets["my-set"].kind == "coco"
    assert lines[1:] == [
        "2 categories: cell, core",
        "6 training images of 64 x 96 pixels (median sides), 12 objects of 12 to 40 pixels (5 and 95 %)",
        "protocol smoke_fpn: its sizes and anchors are kept",
    ]


def test_anchors_of_a_named_protocol_are_fitted_and_its_name_kept(own: Path) -> None:
    benchmark, lines = with_own_set("demo", ["protocols={fpn_1x: {}}"], own)
    protocol = benchmark.protocols["fpn_1x"]
    assert (protocol.base, protocol.test_size, protocol.iterations) == ("fpn_1x", 128, 90_000)
    assert lines[-1] == (
        "protocol fpn_1x: train_sizes [640, 672, 704, 736, 768, 800] -> [96, 128], test_size 800 -> 128, "
        "max_size 1333 -> 224"
    )


def test_the_labelled_images_that_nobody_reads_any_more_need_not_be_there(own: Path) -> None:
    benchmark, _ = with_own_set("paper", [], own)
    assert benchmark.data.kind == "pool"
    assert benchmark.data.pool == Path("data/imagenet/train").absolute()


def test_a_set_with_a_fault_is_refused_before_anything_runs(own: Path) -> None:
    coco = json.loads((own / "train.json").read_text())
    coco["annotations"][0]["bbox"] = [0, 0, 999, 5]
    (own / "train.json").write_text(json.dumps(coco))
    with pytest.raises(PCDError, match=r"\A[^\n]*annotation 1 has the box [^\n]* outside its image[^\n]*\Z"):
        with_own_set("smoke", [], own)


def test_a_set_that_no_protocol_can_use_is_refused(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for name in ("a", "b"):
            save_noise(tmp_path / "set" / split / name / "1.png", 8, 8, 0)
    with pytest.raises(PCDError, match="is of kind classes, and profile smoke has no probe"):
        with_own_set("smoke", [], tmp_path / "set")


@pytest.mark.parametrize("years", [(2007, 2012), (2007,)])
def test_voc_without_one_of_its_years_departs_from_the_named_protocol(tmp_path: Path, years: tuple[int, ...]) -> None:
    folder = tmp_path / "VOCdevkit"
    for year, part in ((2007, "trainval"), (2007, "test"), (2012, "trainval")):
        if year in years:
            write_voc(folder, year, part, {f"{year}{part}": [("dog", (1, 1, 9, 9), 0)]})
    protocols = "protocols={voc_c4_24k: {}, fpn_1x: {architecture: faster_rcnn_fpn}}"
    _, lines = with_own_set("demo", [protocols, "sets.voc={kind: voc, folder: elsewhere}"], folder)
    trained = " and ".join(f"{year}_trainval" for year in years)
    assert lines[0] == f"set vocdevkit: voc in {folder}, {trained} to train, 2007_test to evaluate"
    assert ("departs from voc_c4_24k: lists 2007_trainval to train, 2007_test" in lines[1]) == (len(years) == 1)
    assert "departs" not in lines[2]
    first = pcd_here("data", "check", str(folder)).output.splitlines()[0]
    assert first == f"vocdevkit (voc: {trained} to train, 2007_test to evaluate)"


def test_cityscapes_is_refused_where_its_evaluation_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for part in ("leftImg8bit", "gtFine"):
        (tmp_path / part).mkdir()
    protocols = ["protocols={cityscapes_fpn: {}}", "sets.cityscapes={kind: cityscapes, folder: elsewhere}"]
    assert with_own_set("demo", protocols, tmp_path)[0].protocols["cityscapes_fpn"]
    monkeypatch.setitem(sys.modules, "cityscapesscripts", None)
    with pytest.raises(PCDError, match=r"\A[^\n]*pip install 'pcd-benchmark\[cityscapes\]'\Z"):
        with_own_set("demo", protocols, tmp_path)


@pytest.mark.parametrize(("folder", "name"), [("My Set (2)", "my-set-2"), ("coco_2017", "coco_2017"), ("数据", "own")])
def test_a_set_is_named_after_its_folder(tmp_path: Path, folder: str, name: str) -> None:
    assert set_name(tmp_path / folder) == name


def test_the_plan_tells_what_was_derived_beside_its_json(own: Path, pcd: Pcd) -> None:
    done = pcd("plan", "smoke", "--data", str(own), "--set", "arms=[random]", "--json")
    assert [stage["id"] for stage in json.loads(done.stdout)["stages"]] == [
        "data:my-set", "finetune:random.smoke_fpn.seed0", "aggregate",
    ]  # fmt: skip
    assert done.stderr.startswith("set my-set: COCO annotations ")


@pytest.mark.slow
def test_a_profile_is_fine_tuned_on_the_users_own_set(own: Path, tmp_path: Path) -> None:
    short = ["protocols.smoke_fpn.iterations=2", "protocols.smoke_fpn.warmup_iterations=1", "arms=[random]"]
    benchmark, _ = with_own_set("smoke", short, own)
    folders: dict[str, Path] = {}
    for stage in make_plan(benchmark).stages:
        folders[stage.id] = tmp_path / str(len(folders))
        folders[stage.id].mkdir()
        inputs = {name: folders[of] for name, of in stage.inputs.items()}
        command = stage_command(
            stage, write_spec(stage, folders[stage.id], inputs, benchmark.runtime), benchmark.runtime
        )
        subprocess.run(command, cwd=ROOT, check=True, timeout=PATIENCE)
    (cell,) = json.loads((folders["aggregate"] / "ap_table.json").read_text())["cells"]
    assert (cell["arm"], cell["protocol"]) == ("random", "smoke_fpn")
    assert (folders["aggregate"] / "detections-my-set.png").exists()
    result = json.loads((folders["finetune:random.smoke_fpn.seed0"] / "result.json").read_text())
    assert {"bbox/AP-cell", "segm/AP-core"} <= result["metrics"].keys()
