"""The last stage, as the process that the benchmark starts, over cells written by hand."""

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pandas as pd
import pytest

from eval.aggregate import aggregate
from eval.coco.report import report
from eval.table import METRICS
from pcd.stage import Spec, read_spec

pytestmark = pytest.mark.slow

FILES = {
    *("results.csv", "cells.csv", "arms.csv", "ap_table.json", "ap_table.md", "ap_summary.md", "ap_table.html"),
    *("ap_by_arm.png", "losses.png", "detections.png", "differences.csv"),
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
    settings = {
        "benchmark": "handmade",
        "baselines": ["random"],
        "against": ["pcd", "random"],
        "noise_ap": 2.0,
        "published": [],
        "cells": cells,
        "notes": ["A note."],
    }
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
    assert arms["bbox/AP Δ random"].to_dict() == {"pcd": 11.0, "random": 0.0}


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
    (broken / "result.json").write_text('{"iterations": 3}')
    inputs = {name: Path(folder) for name, folder in raw["inputs"].items()} | {"finetune:pcd.fpn.seed0": broken}
    done = run_module("eval.aggregate", new_spec(tmp_path / "out", raw["settings"], inputs))
    assert done.returncode == 1
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"spec.json"}


def test_the_draws_of_the_intervals_are_told_as_they_go_on(
    spec: Path, tmp_path: Path, new_spec: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = json.loads(spec.read_text())
    val = json.loads((Path(raw["inputs"]["data"]) / "val.json").read_text())
    folder, cell = stage_folder(tmp_path / "cell", loss=3, ap=100.0), raw["settings"]["cells"][1]
    report(val, [a | {"score": 0.5} for a in val["annotations"]], ["bbox", "segm"], folder)
    inputs = {"data": Path(raw["inputs"]["data"]), f"finetune:{cell['cell']}": folder}
    told: list[tuple[str, int, int]] = []
    monkeypatch.setattr(Spec, "activity", lambda spec, *activity: told.append(activity))
    settings = raw["settings"] | {"cells": [cell | {"pretrain": None}]}
    aggregate(read_spec(new_spec(tmp_path / "out", settings, inputs)))
    assert told == [("draws of the evaluation images", done, 2) for done in (1, 2)]


def test_cells_of_all_kinds_stand_in_one_table(
    spec: Path,
    tmp_path: Path,
    new_spec: Callable[..., Path],
    run_module: Callable[..., "CompletedProcess[str]"],
) -> None:
    """A Mask R-CNN scored by COCO, a detector of boxes on a set of its own, and a probe."""
    raw = json.loads(spec.read_text())
    val = json.loads((Path(raw["inputs"]["data"]) / "val.json").read_text())
    inputs, cells = {"data": Path(raw["inputs"]["data"]), "data:mine": Path(raw["inputs"]["data"])}, []

    def add(arm: str, protocol: str, stage: str, metrics: dict[str, float], of_set: str | None = None) -> Path:
        cell = f"{arm}.{protocol}.seed0"
        inputs[f"{stage}:{cell}"] = stage_folder(tmp_path / cell, loss=3)
        (tmp_path / cell / "result.json").write_text(json.dumps({"metrics": metrics}))
        cells.append({"cell": cell, "arm": arm, "protocol": protocol, "seed": 0, "pretrain": None, "set": of_set})
        return tmp_path / cell

    for arm, share in (("random", 2), ("pcd", 1)):
        found = [a | {"score": 0.5} for a in val["annotations"] if a["id"] % share == 0]
        folder = add(arm, "fpn", "finetune", {"bbox/AP": 50.0 / share, "segm/AP": 40.0 / share, "bbox/AR100": 1.0})
        (folder / "predictions.json").write_text(json.dumps(found))
        report(val, found, ["bbox", "segm"], folder)
        add(arm, "linear", "probe", {"top1": 60.0 / share, "top5": None})
    (add("pcd", "voc", "finetune", {"bbox/AP": 33.0}, "mine") / "predictions.json").write_text("[]")
    settings = raw["settings"] | {"cells": cells}
    done = run_module("eval.aggregate", new_spec(tmp_path / "out", settings, inputs))
    assert done.returncode == 0, done.stderr
    left = {path.name for path in (tmp_path / "out").iterdir()}
    assert left - {"spec.json", "result.json"} == FILES | {
        *("intervals.csv", "intervals.png", "mistakes.csv", "mistakes.png", "detections-mine.png")
    }
    printed = {
        (row["arm"], row["protocol"]): row
        for row in json.loads((tmp_path / "out" / "ap_table.json").read_text())["printed"]
    }
    assert (printed["pcd", "linear"]["top-1"], printed["pcd", "linear"]["top-1 Δ random"]) == ("60.0 *", "+30.0")
    assert (printed["pcd", "linear"]["box AP"], printed["pcd", "fpn"]["top-1"]) == ("–", "–")
    assert (printed["pcd", "voc"]["box AP"], printed["pcd", "voc"]["mask AP"]) == ("33.0", "–")
    intervals = pd.read_csv(tmp_path / "out" / "intervals.csv").set_index(["arm", "task"])
    assert intervals.loc[("pcd", "bbox"), "ap"] == 100
    differences = pd.read_csv(tmp_path / "out" / "differences.csv")
    of_masks = differences[(differences["metric"] == "segm/AP") & (differences["against"] == "random")]
    assert of_masks[["arm", "difference"]].to_numpy().tolist() == [["pcd", 20.0]]
    assert of_masks["images low"].item() > 0
    assert of_masks["seeds low"].isna().all()
    mistakes = pd.read_csv(tmp_path / "out" / "mistakes.csv").set_index(["arm", "task", "kind"])
    assert mistakes.loc[("pcd", "bbox", "missed"), "count"] == 0
    assert mistakes.loc[("random", "bbox", "missed"), "count"] > 3
    assert "## Intervals over images" in (tmp_path / "out" / "ap_table.md").read_text()
