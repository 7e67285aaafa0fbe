"""What a finished benchmark's cells rest on, read from stage folders written by hand."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flows.run_record import NOT_ASKED_FOR
from flows.run_results import cell_folders, cells_of, read_cells
from tests.flows.finished_smoke import finish_benchmark

STAGES = {"data": "d", "teacher": "t", "pretrain:pcd.seed0": "p", "finetune:pcd.fpn.seed0": "f", "aggregate": "a"}


def write_stage(
    root: Path, stage: str, inputs: tuple[str, ...] = (), settings: Any = None, *, torch: str = "2.14.0",
    gpus: tuple[str, ...] = (), device: str = "auto", **result: Any,
) -> None:  # fmt: skip
    folder = root / stage.partition(":")[0] / STAGES[stage]
    folder.mkdir(parents=True, exist_ok=True)
    environment = {
        "python": "3.11.9", "processor": "a CPU", "gpus": list(gpus),
        "packages": {"torch": torch, "prefect": "3.8.8", "timm": None}, "all_packages": ["pillow==12.0", "rich==14"],
    }  # fmt: skip
    parts = {"settings": settings or {}, "inputs": {}, "files": {}, "sources": {f"{stage}.py": "s"}}
    manifest = {"inputs": {name: name for name in inputs}, "parts": parts, "environment": environment}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "result.json").write_text(json.dumps(result))
    (folder / "spec.json").write_text(json.dumps({"runtime": {"device": device}}))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_stage(tmp_path, "data", settings={"data": {"size": 64}}, fingerprint="F")
    write_stage(tmp_path, "teacher", sha256="T")
    write_stage(tmp_path, "pretrain:pcd.seed0", ("data", "teacher"), {"pretrain": {"epochs": 2}})
    metrics = {"bbox/AP": 1.5, "segm/AP": None}
    write_stage(tmp_path, "finetune:pcd.fpn.seed0", ("data", "pretrain:pcd.seed0"), metrics=metrics, weights_sha256="W")
    return tmp_path


def test_a_cell_has_its_figures_and_the_hash_of_its_weights(root: Path) -> None:
    (cell,) = read_cells(STAGES, {}, [root])
    assert (cell.cell, cell.group, cell.weights_sha256) == ("pcd.fpn.seed0", "pcd.fpn", "W")
    assert cell.metrics == {"bbox/AP": 1.5, "segm/AP": None}


def test_a_cell_rests_on_all_of_its_chain(root: Path) -> None:
    (cell,) = read_cells(STAGES, {}, [root])
    assert cell.basis == {
        "settings": {"data.size": "64", "pretrain.epochs": "2"},
        "data": {"data fingerprint": "F", "teacher sha256": "T"},
        # What drew the data and read the teacher is of no account: their content is known.
        "source": {"pretrain:pcd.seed0.py": "s", "finetune:pcd.fpn.seed0.py": "s"},
        "versions": {"torch": "2.14.0", "Python": "3.11.9"},
        "hardware": {"device": "a CPU"},
    }


def test_stages_of_unlike_versions_and_machines_are_told_together(root: Path) -> None:
    gpus = ("NVIDIA H200, 570.1", "NVIDIA H200, 570.1")
    write_stage(root, "pretrain:pcd.seed0", ("data", "teacher"), torch="2.15.0", gpus=gpus)
    (cell,) = read_cells(STAGES, {}, [root])
    assert cell.basis["versions"]["torch"] == "2.14.0 + 2.15.0"
    assert cell.basis["hardware"]["device"] == "NVIDIA H200 + a CPU"


def test_a_stage_that_was_kept_off_the_gpu_ran_on_the_cpu(root: Path) -> None:
    for stage, inputs in (("pretrain:pcd.seed0", ("data", "teacher")), ("finetune:pcd.fpn.seed0", ("data",))):
        write_stage(root, stage, inputs, gpus=("NVIDIA H200, 570.1",), device="cpu", metrics={})
    (cell,) = read_cells(STAGES, {}, [root])
    assert cell.basis["hardware"] == {"device": "a CPU"}


def test_the_first_root_that_has_a_stage_counts(root: Path, tmp_path: Path) -> None:
    part = tmp_path / "part"
    write_stage(part, "finetune:pcd.fpn.seed0", ("data", "pretrain:pcd.seed0"), metrics={"bbox/AP": 9.0})
    (cell,) = read_cells(STAGES, {}, [part, root])
    assert cell.metrics == {"bbox/AP": 9.0}
    assert cell.basis["data"]["data fingerprint"] == "F"


@pytest.mark.parametrize("gone", ["data/d/manifest.json", "finetune/f/result.json", "pretrain/p/manifest.json"])
def test_a_cell_of_which_something_is_gone_is_a_hole(root: Path, gone: str) -> None:
    (root / gone).unlink()
    (cell,) = read_cells(STAGES, {}, [root])
    assert cell.hole == "the store no longer has all of its stages"


def test_holes_of_the_record_keep_their_reason(root: Path) -> None:
    holes = {"finetune:pcd.fpn.seed0": "out of memory", "finetune:pcd.fpn.seed1": "not asked for"}
    assert [(c.cell, c.group, c.hole) for c in read_cells(STAGES, holes, [root])] == [
        ("pcd.fpn.seed0", "pcd.fpn", "out of memory"),
        ("pcd.fpn.seed1", "pcd.fpn", "not asked for"),
    ]


def test_what_was_not_asked_for_is_no_cell_of_a_finished_run(pcd_home: Path) -> None:
    _, record = finish_benchmark()
    asked_for = [cell.cell for cell in cells_of(record)]
    left_out = f"finetune:{asked_for[0]}"
    stages = {stage: key for stage, key in record.stages.items() if stage != left_out}
    part = replace(record, stages=stages, holes={left_out: NOT_ASKED_FOR})
    assert [cell.cell for cell in cells_of(part)] == asked_for[1:]
    assert list(cell_folders(part)) == asked_for[1:]
