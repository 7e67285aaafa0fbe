"""The last stage, as the process that the benchmark starts, over cells written by hand."""

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pandas as pd
import pytest

from eval.table import METRICS

pytestmark = pytest.mark.slow

FILES = {
    *("cells.csv", "arms.csv", "ap_table.json", "ap_table.md", "ap_summary.md", "ap_table.html"),
    *("ap_by_arm.png", "losses.png", "detections.png"),
}


def stage_folder(folder: Path, loss: float, ap: float | None = None) -> Path:
    """What a training stage leaves; with `ap` also what an evaluation does."""
    folder.mkdir(parents=True)
    lines = [{"step": step, "total": 3, "time": 0.0, "loss": loss / step} for step in (1, 2, 3)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if ap is not None:
        metrics = dict.fromkeys(METRICS, ap) | {"bbox/APl": None, "bbox/AP-disk": 1.0}
        (folder / "result.json").write_text(json.dumps({"metrics": metrics, "iterations": 3}))
        (folder / "predictions.json").write_text("[]")
    return folder


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory, new_spec: Callable[..., Path], shapes_set: Path) -> Path:
    root = tmp_path_factory.mktemp("aggregate")
    cells, inputs = [], {"data": shapes_set}
    for seed in (0, 1):
        inputs[f"pretrain:pcd.seed{seed}"] = stage_folder(root / f"pretrain{seed}", loss=5)
        for arm, ap in (("pcd", 30.0 + 2 * seed), ("random", 20.0)):
            cell = f"{arm}.fpn.seed{seed}"
            inputs[f"finetune:{cell}"] = stage_folder(root / cell, loss=3, ap=ap)
            pretrain = f"pcd.seed{seed}" if arm == "pcd" else None
            cells.append({"cell": cell, "arm": arm, "protocol": "fpn", "seed": seed, "pretrain": pretrain})
    settings = {"benchmark": "handmade", "baseline": "random", "cells": cells, "notes": ["A note."]}
    return new_spec(root / "out", settings, inputs)


@pytest.fixture(scope="module")
def out(spec: Path, run_module: Callable[..., "CompletedProcess[str]"]) -> Path:
    done = run_module("eval.aggregate", spec)
    assert done.returncode == 0, done.stderr
    return spec.parent


def test_all_tables_and_figures_are_left(out: Path) -> None:
    assert {path.name for path in out.iterdir()} - {"spec.json", "result.json"} == FILES


def test_the_arms_have_the_figures_of_their_cells(out: Path) -> None:
    arms = pd.read_csv(out / "arms.csv").set_index("arm")
    assert arms["bbox/AP mean"].to_dict() == {"pcd": 31.0, "random": 20.0}
    assert arms["bbox/AP delta"].to_dict() == {"pcd": 11.0, "random": 0.0}


def test_the_result_counts_cells_and_arms(out: Path) -> None:
    result = json.loads((out / "result.json").read_text())
    assert (result["cells"], result["arms"]) == (4, 2)


def test_the_title_names_the_benchmark(out: Path) -> None:
    assert json.loads((out / "ap_table.json").read_text())["title"] == "AP table of handmade"


def test_holes_are_named_in_title_tables_and_result(
    spec: Path,
    tmp_path: Path,
    new_spec: Callable[..., Path],
    run_module: Callable[..., "CompletedProcess[str]"],
) -> None:
    raw = json.loads(spec.read_text())
    lost, left = raw["settings"]["cells"][0], raw["settings"]["cells"][1:]
    settings = raw["settings"] | {"cells": left, "holes": [lost | {"reason": "the disk was full"}]}
    inputs = {name: Path(folder) for name, folder in raw["inputs"].items() if name != f"finetune:{lost['cell']}"}
    done = run_module("eval.aggregate", new_spec(tmp_path / "out", settings, inputs))
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "out" / "ap_table.md").read_text()
    assert page.startswith("# AP table of handmade (3 of 4 cells)\n")
    assert "Hole: pcd.fpn.seed0 has no figures: the disk was full" in page
    assert json.loads((tmp_path / "out" / "result.json").read_text())["holes"] == 1
    assert {path.name for path in (tmp_path / "out").iterdir()} - {"spec.json", "result.json"} >= FILES


def test_a_cell_without_a_figure_ends_without_a_table(
    spec: Path,
    tmp_path: Path,
    new_spec: Callable[..., Path],
    run_module: Callable[..., "CompletedProcess[str]"],
) -> None:
    raw = json.loads(spec.read_text())
    broken = stage_folder(tmp_path / "broken", loss=3, ap=1.0)
    (broken / "result.json").write_text('{"metrics": {"bbox/AP": 1.0}}')
    inputs = {name: Path(folder) for name, folder in raw["inputs"].items()} | {"finetune:pcd.fpn.seed0": broken}
    done = run_module("eval.aggregate", new_spec(tmp_path / "out", raw["settings"], inputs))
    assert done.returncode == 1
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"spec.json"}
