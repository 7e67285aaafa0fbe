"""The table of intervals and mistakes, from what evaluations left."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from eval.coco.bootstrap import resample
from eval.coco.figures import draw_intervals, draw_mistakes
from eval.coco.intervals import (
    Drawn,
    Evaluated,
    arm_intervals,
    arm_mistakes,
    draw_arms,
    interval_note,
    printed_intervals,
)
from eval.coco.report import report
from eval.differences import arm_differences
from eval.results_frame import Cell
from eval.table import cell_table
from tests.eval.coco.conftest import matches_of

Record = dict[str, Any]
Drawn_ = dict[tuple[str, str], dict[str, Drawn]]


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
def drawn(cells: list[Evaluated]) -> Drawn_:
    return draw_arms(cells, threads=2)


@pytest.fixture(scope="module")
def intervals(drawn: Drawn_) -> pd.DataFrame:
    return arm_intervals(drawn)


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


def test_all_arms_are_drawn_on_the_same_images(drawn: Drawn_) -> None:
    random, pcd = drawn["fpn", "bbox"].values()
    assert (random.n, pcd.n) == (1, 2)
    assert np.corrcoef(random.draws, pcd.draws)[0, 1] > 0.5


def test_progress_is_told_behind_each_cell_and_task(cells: list[Evaluated]) -> None:
    told: list[tuple[str, int, int]] = []
    draw_arms(cells, tick=lambda *progress: told.append(progress))
    assert told == [("draws of the evaluation images", done, 3) for done in (1, 2, 3)]


def test_the_intervals_are_printed_with_their_ends() -> None:
    ends = {"ap": [31.04], "low": [30.0], "high": [32.0]}
    table = pd.DataFrame({"arm": ["pcd"], "protocol": ["fpn"], "task": ["segm"], "n": [2], **ends})
    assert printed_intervals(table).iloc[0].tolist() == ["pcd", "fpn", "mask", "2", "31.0", "30.0 to 32.0"]
    assert "95 %" in interval_note()


def test_without_matches_there_are_no_rows(cells: list[Evaluated]) -> None:
    assert arm_intervals(draw_arms(cells[-1:])).empty
    assert arm_mistakes(cells[-1:]).empty


def test_mistakes_are_means_over_seeds(cells: list[Evaluated]) -> None:
    both = arm_mistakes(cells)
    apart = [arm_mistakes([cell]) for cell in cells[1:3]]
    of_pcd = both[both["arm"] == "pcd"]["cost"].to_numpy()
    assert of_pcd == pytest.approx(np.mean([seed["cost"] for seed in apart], axis=0))
    assert both["kind"].tolist()[:6] == ["classification", "localisation", "both", "duplicate", "background", "missed"]


def test_both_figures_fit_a_screen(
    cells: list[Evaluated], drawn: Drawn_, intervals: pd.DataFrame, tmp_path: Path
) -> None:
    figures = [
        Cell(cell=f"{arm}{i}", arm=arm, protocol="fpn", seed=i, metrics={"bbox/AP": of.ap + i})
        for arm, of in drawn["fpn", "bbox"].items()
        for i in range(2)
    ]
    differences = arm_differences(cell_table(figures), ["random"], drawn)
    draw_intervals(intervals, differences, tmp_path / "a.png")
    draw_mistakes(arm_mistakes(cells), ["pcd", "random"], tmp_path / "b.png")
    for name in ("a", "b"):
        with Image.open(tmp_path / f"{name}.png") as file:
            assert 150 < file.height < file.width < 1600
            assert np.asarray(file.convert("L")).std() > 5
