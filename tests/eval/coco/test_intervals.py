"""The table of intervals and mistakes, from what evaluations left."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from eval.coco.bootstrap import resample
from eval.coco.figures import draw_intervals, draw_mistakes
from eval.coco.intervals import Evaluated, arm_intervals, arm_mistakes, interval_note, printed_intervals
from eval.coco.report import report
from tests.eval.coco.conftest import matches_of

Record = dict[str, Any]


@pytest.fixture(scope="module")
def cells(coco: Record, distinct: list[Record], tmp_path_factory: pytest.TempPathFactory) -> list[Evaluated]:
    """Two seeds of pcd, one of random, which overlooks every fourth detection, and a probe without any."""
    root, left_out = tmp_path_factory.mktemp("intervals"), {"random": 4, "pcd": 97, "pcd2": 89}
    for name, share in left_out.items():
        (root / name).mkdir()
        report(coco, [d for i, d in enumerate(distinct) if i % share], ["bbox"], root / name)
    (root / "probe").mkdir()
    cells = [Evaluated(name.removesuffix("2"), "fpn", root / name) for name in left_out]
    return [*cells, Evaluated("pcd", "linear", root / "probe")]


@pytest.fixture(scope="module")
def intervals(cells: list[Evaluated]) -> pd.DataFrame:
    return arm_intervals(cells, ["random"], threads=2)


def test_an_arm_has_one_row_with_the_mean_of_its_seeds(
    intervals: pd.DataFrame, coco: Record, distinct: list[Record]
) -> None:
    assert intervals[["arm", "protocol", "task", "n"]].to_numpy().tolist() == [
        ["random", "fpn", "bbox", 1],
        ["pcd", "fpn", "bbox", 2],
    ]
    seeds = [matches_of(coco, [d for i, d in enumerate(distinct) if i % share]) for share in (97, 89)]
    assert intervals["ap"][1] == pytest.approx(resample(seeds, 1)[0])
    assert (intervals["low"] < intervals["ap"]).all()
    assert (intervals["ap"] < intervals["high"]).all()


def test_the_baseline_has_no_difference_and_the_others_a_paired_one(intervals: pd.DataFrame) -> None:
    assert intervals.loc[0, ["Δ random", "Δ random low", "Δ random high"]].isna().all()
    assert intervals["Δ random"][1] == pytest.approx(intervals["ap"][1] - intervals["ap"][0])
    assert 0 < intervals["Δ random low"][1] < intervals["Δ random"][1] < intervals["Δ random high"][1]
    assert intervals["Δ random high"][1] - intervals["Δ random low"][1] < intervals["high"][1] - intervals["low"][1]


def test_the_intervals_are_printed_with_their_ends() -> None:
    ends = {
        "ap": [31.04],
        "low": [30.0],
        "high": [32.0],
        "Δ random": [1.26],
        "Δ random low": [-0.5],
        "Δ random high": [3.0],
    }
    table = pd.DataFrame({"arm": ["pcd"], "protocol": ["fpn"], "task": ["segm"], "n": [2], **ends})
    assert printed_intervals(table, ["random"]).iloc[0].tolist() == [
        *("pcd", "fpn", "mask", "2", "31.0 (30.0 to 32.0)", "+1.3 (-0.5 to +3.0)")
    ]
    assert "95 %" in interval_note()


def test_without_matches_there_are_no_rows(cells: list[Evaluated]) -> None:
    assert arm_intervals(cells[-1:], ["random"]).empty
    assert arm_mistakes(cells[-1:]).empty


def test_mistakes_are_means_over_seeds(cells: list[Evaluated]) -> None:
    both = arm_mistakes(cells)
    apart = [arm_mistakes([cell]) for cell in cells[1:3]]
    of_pcd = both[both["arm"] == "pcd"]["cost"].to_numpy()
    assert of_pcd == pytest.approx(np.mean([seed["cost"] for seed in apart], axis=0))
    assert both["kind"].tolist()[:6] == ["classification", "localisation", "both", "duplicate", "background", "missed"]


def test_both_figures_fit_a_screen(cells: list[Evaluated], intervals: pd.DataFrame, tmp_path: Path) -> None:
    draw_intervals(intervals, ["random"], tmp_path / "a.png")
    draw_mistakes(arm_mistakes(cells), tmp_path / "b.png")
    for name in ("a", "b"):
        with Image.open(tmp_path / f"{name}.png") as file:
            assert 150 < file.height < file.width < 1600
            assert np.asarray(file.convert("L")).std() > 5
