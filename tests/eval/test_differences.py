import numpy as np
import pandas as pd
import pytest

from eval.chance import seed_interval
from eval.coco.bootstrap import interval
from eval.coco.intervals import Drawn
from eval.differences import arm_differences, difference_note, printed_differences
from eval.results_frame import Cell
from eval.table import cell_table

APS = {"pcd": [30.0, 32.0], "seed": [25.0, 26.0], "random": [20.0]}


@pytest.fixture
def cells() -> pd.DataFrame:
    return cell_table(
        [
            Cell(cell=f"{arm}.fpn.seed{i}", arm=arm, protocol="fpn", seed=i, metrics={"bbox/AP": ap, "bbox/AP50": 50.0})
            for arm, of in APS.items()
            for i, ap in enumerate(of)
        ]
    )


def test_every_arm_is_held_against_each_of_those_named(cells: pd.DataFrame) -> None:
    table = arm_differences(cells, ["pcd", "random"], {})
    assert table[["arm", "against", "metric", "n", "n against", "difference"]].to_numpy().tolist() == [
        ["seed", "pcd", "bbox/AP", 2, 2, -5.5],
        ["random", "pcd", "bbox/AP", 1, 2, -11.0],
        ["pcd", "random", "bbox/AP", 2, 1, 11.0],
        ["seed", "random", "bbox/AP", 2, 1, 5.5],
    ]


def test_of_two_seeds_each_the_interval_over_seeds_is_welchs(cells: pd.DataFrame) -> None:
    table = arm_differences(cells, ["pcd"], {}).set_index("arm")
    assert (table.loc["seed", "seeds low"], table.loc["seed", "seeds high"]) == seed_interval(APS["seed"], APS["pcd"])
    assert table.loc["random", ["seeds low", "seeds high"]].isna().all()


def test_the_interval_over_images_is_of_the_paired_draws(cells: pd.DataFrame) -> None:
    rng = np.random.default_rng(0)
    common, own = rng.normal(size=(2, 1000))
    drawn = {"pcd": Drawn(2, 31.0, 31 + 5 * common), "seed": Drawn(2, 25.5, 25.5 + 5 * common + 0.1 * own)}
    row = arm_differences(cells, ["pcd"], {("fpn", "bbox"): drawn}).iloc[0]
    found = interval(25.5 - 31.0, drawn["seed"].draws - drawn["pcd"].draws)
    assert (row["images low"], row["images high"]) == (found.low, found.high)
    assert row["images high"] - row["images low"] < 0.5  # what makes an image hard for both has cancelled


def test_an_arm_that_the_protocol_lacks_is_held_against_nobody(cells: pd.DataFrame) -> None:
    assert arm_differences(cells, ["supervised"], {}).empty


def test_a_difference_is_printed_with_both_intervals_or_dashes(cells: pd.DataFrame) -> None:
    shown = printed_differences(arm_differences(cells, ["pcd"], {}))
    low, high = seed_interval(APS["seed"], APS["pcd"]) or (0, 0)
    assert shown.to_numpy().tolist() == [
        ["seed", "pcd", "fpn", "box AP", "2", "-5.5", f"{low:+.1f} to {high:+.1f}", "–"],
        ["random", "pcd", "fpn", "box AP", "1 | 2", "-11.0", "–", "–"],
    ]
    assert "by chance alone" in difference_note()
