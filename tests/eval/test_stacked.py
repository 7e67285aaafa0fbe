from typing import Any

from eval.stacked import stacked_arms, stacked_cells, without_repeats

ARM = {"protocol": "fpn", "n": "3", "box AP": "25.2 ± 1.8 *", "box Δ random": "+0.8", "box APl": "–", "mask AP": "20.1"}
RECORD: dict[str, Any] = {
    "baselines": ["random"],
    "printed": [{"arm": "pcd", **ARM}, {"arm": "random", **ARM, "box Δ random": "–"}],
    "intervals": [{"arm": "pcd", "protocol": "fpn", "task": "bbox", "low": 20.04, "high": 30.0}],
}


def test_mask_stands_below_box_and_what_nobody_has_is_left_out() -> None:
    columns, rows = stacked_arms(RECORD)
    assert columns == ("arm", "protocol", "n", "figure", "AP", "over images", "Δ random")
    assert rows == [
        ("pcd", "fpn", "3", "box", "25.2 ± 1.8 *", "20.0 to 30.0", "+0.8"),
        ("pcd", "fpn", "3", "mask", "20.1", "–", "–"),
        ("random", "fpn", "3", "box", "25.2 ± 1.8 *", "–", "–"),
        ("random", "fpn", "3", "mask", "20.1", "–", "–"),
    ]


def test_names_are_blank_where_they_repeat() -> None:
    assert [row[:4] for row in without_repeats(stacked_arms(RECORD))] == [
        ("pcd", "fpn", "3", "box"), ("", "", "", "mask"), ("random", "fpn", "3", "box"), ("", "", "", "mask"),
    ]  # fmt: skip


def test_an_accuracy_stands_in_the_column_of_ap() -> None:
    linear = {"arm": "pcd", "protocol": "linear", "n": "1", "top-1": "61.0", "top-1 Δ random": "+3.0"}
    rows = stacked_arms(RECORD | {"printed": [*RECORD["printed"], linear]})[1]
    assert rows[-1] == ("pcd", "linear", "1", "top-1", "61.0", "–", "+3.0")


def test_an_arm_without_a_figure_keeps_one_line_of_dashes() -> None:
    lost = {"arm": "seed", "protocol": "fpn", "n": "0 of 3"}
    rows = stacked_arms(RECORD | {"printed": [*RECORD["printed"], lost]})[1]
    assert rows[-1][:5] == ("seed", "fpn", "0 of 3", "–", "–")


def test_a_cell_has_one_decimal_and_a_hole_dashes() -> None:
    cells = [{"cell": "pcd.fpn.seed0", "bbox/AP": 25.25, "bbox/APl": None, "segm/AP": 20.0}]
    columns, rows = stacked_cells({"cells": cells, "holes": [{"cell": "pcd.fpn.seed1", "reason": "out of memory"}]})
    assert columns == ("cell", "figure", "AP")
    assert rows == [("pcd.fpn.seed0", "box", "25.2"), ("pcd.fpn.seed0", "mask", "20.0"), ("pcd.fpn.seed1", "–", "–")]


def test_top5_of_a_probe_stands_below_its_top1() -> None:
    cell = {"cell": "pcd.linear.seed0", "top1": 40.0, "top5": 70.0}
    assert [row[1:] for row in stacked_cells({"cells": [cell]})[1]] == [("top-1", "40.0"), ("top5", "70.0")]
    arm = {"arm": "pcd", "protocol": "linear", "n": "1", "top-1": "40.0", "top5": "70.0"}
    assert [row[3:] for row in stacked_arms({"printed": [arm]})[1]] == [("top-1", "40.0"), ("top5", "70.0")]
