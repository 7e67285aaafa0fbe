"""The report's tables say what ap_table.json says."""

import math

import pytest

from eval.report.table import ap_text, report_tables

RECORD = {
    "baselines": ["random"],
    "intervals": [{"arm": "pcd", "protocol": "fpn", "task": "bbox", "low": 20.0, "high": 30.0}],
    "printed": [{"arm": "pcd", "protocol": "fpn", "n": "2 of 3", "box AP": "25.2 ± 1.8", "box Δ random": "+0.8"}],
    "cells": [
        {"cell": "pcd.fpn.seed0", "arm": "pcd", "protocol": "fpn", "seed": 0, "bbox/AP": 25.25, "bbox/APl": None},
        {"cell": "pcd.fpn.seed2", "arm": "pcd", "protocol": "fpn", "seed": 2, "bbox/AP": 20.0, "bbox/APl": 1.0},
    ],
    "holes": [{"cell": "pcd.fpn.seed1", "arm": "pcd", "protocol": "fpn", "seed": 1, "reason": "out of memory"}],
    "further": {
        "Differences between arms": [{"arm": "pcd", "difference": "+0.8"}],
        "Intervals over images": [{"arm": "pcd"}],
    },
}


def test_the_arms_stand_as_they_are_printed() -> None:
    arms = report_tables(RECORD)[0]
    assert arms.columns == ("arm", "n", "figure", "AP", "over images", "Δ random")
    assert arms.rows == (("pcd", "2 of 3", "box", "25.2 ± 1.8", "20.0 to 30.0", "+0.8"),)
    assert "by fpn" in arms.caption
    assert "difference to random" in arms.caption


def test_a_cell_has_one_decimal_and_a_dash_for_what_does_not_exist() -> None:
    cells = report_tables(RECORD)[-1]
    assert cells.columns == ("cell", "figure", "AP", "APl")
    assert cells.rows[0] == ("pcd.fpn.seed0", "box", "25.2", "–")


def test_a_hole_is_a_row_of_dashes() -> None:
    assert report_tables(RECORD)[-1].rows[2] == ("pcd.fpn.seed1", "–", "–", "–")


def test_differences_stand_behind_the_arms_whose_intervals_are_a_column_there() -> None:
    assert [table.heading for table in report_tables(RECORD)] == ["By arm", "Differences between arms", "By cell"]


@pytest.mark.parametrize("record", [{}, {"title": "t", "cells": [], "notes": []}])
def test_a_record_without_rows_has_no_tables(record: dict[str, object]) -> None:
    assert report_tables(record) == []


def test_a_cell_in_words_has_what_cells_are_compared_by() -> None:
    assert ap_text({"bbox/AP": 27.14, "bbox/AP50": 42.0, "segm/AP": None}) == "box AP 27.1, mask AP –"
    assert ap_text({"top1": 61.0}) == "top-1 61.0"
    assert ap_text({"loss": math.pi}) == ""
