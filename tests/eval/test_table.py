"""The AP table against figures computed by hand."""

import json
import math
from pathlib import Path

import pandas as pd
import pytest

from eval.results_frame import Cell
from eval.table import METRICS, Hole, arm_table, cell_table, printed_arms, printed_cells, write_tables

HOSTILE = '<script>alert("x")</script> & co'


def cell(arm: str, seed: int, ap: float | None, protocol: str = "fpn", **metrics: float | None) -> Cell:
    """A cell with the same value for every metric, but for those named with two underscores for the slash."""
    values: dict[str, float | None] = dict.fromkeys(METRICS, ap)
    values |= {name.replace("__", "/"): value for name, value in metrics.items()}
    return Cell(cell=f"{arm}.{protocol}.seed{seed}", arm=arm, protocol=protocol, seed=seed, metrics=values)


@pytest.fixture
def cells() -> pd.DataFrame:
    return cell_table(
        [
            cell("random", 0, 5.0, bbox__APl=None),
            cell("random", 1, 7.0, bbox__APl=None),
            cell("pcd", 0, 10.0, bbox__APl=None, segm__AP=12.25),
            cell("pcd", 1, 20.0, bbox__APl=None, segm__AP=12.25),
            cell("pcd", 2, 30.0, bbox__APl=None, segm__AP=12.25),
        ]
    )


@pytest.fixture
def arms(cells: pd.DataFrame) -> pd.DataFrame:
    return arm_table(cells, ["random"])


@pytest.fixture
def written(tmp_path: Path, cells: pd.DataFrame, arms: pd.DataFrame) -> Path:
    write_tables(tmp_path, "AP table of test", cells, arms, ["random"], ["One note.", "Another note."])
    return tmp_path


def markdown_tables(path: Path) -> list[list[list[str]]]:
    """Tables of a Markdown file as rows of stripped texts, headers first."""
    tables: list[list[list[str]]] = [[]]
    for line in path.read_text().splitlines():
        if line.startswith("|"):
            values = [text.strip() for text in line.strip("|").split("|")]
            if not all(set(v) <= set(":-") for v in values):
                tables[-1].append(values)
        elif tables[-1]:
            tables.append([])
    return [table for table in tables if table]


def rows_of(shown: pd.DataFrame) -> list[list[str]]:
    return [list(shown.columns), *([str(v) for v in row] for row in shown.itertuples(index=False))]


def test_a_cell_row_holds_its_names_and_metrics(cells: pd.DataFrame) -> None:
    row = cells.iloc[2]
    assert (row["cell"], row["arm"], row["protocol"], row["seed"]) == ("pcd.fpn.seed0", "pcd", "fpn", 0)
    assert (row["bbox/AP"], row["segm/AP"]) == (10.0, 12.25)


def test_a_cell_row_has_the_twelve_coco_figures_and_no_more(cells: pd.DataFrame) -> None:
    assert list(cells.columns) == ["cell", "arm", "protocol", "seed", *METRICS]
    assert len(METRICS) == 12


def test_figures_per_category_do_not_disturb_the_table() -> None:
    extra = cell("pcd", 0, 10.0, bbox__APdisk=3.0)
    assert "bbox/APdisk" not in cell_table([extra]).columns


def test_a_size_class_without_objects_is_not_a_number(cells: pd.DataFrame) -> None:
    assert cells["bbox/APl"].isna().all()


def test_an_ap_of_zero_stays_zero() -> None:
    assert cell_table([cell("pcd", 0, 0.0)])["bbox/AP"].tolist() == [0.0]


def test_an_arm_has_the_mean_of_its_seeds(arms: pd.DataFrame) -> None:
    assert arms["bbox/AP mean"].tolist() == [6.0, 20.0]


def test_an_arm_has_the_sample_standard_deviation_of_its_seeds(arms: pd.DataFrame) -> None:
    assert arms["bbox/AP std"].tolist() == pytest.approx([math.sqrt(2), 10.0])


def test_an_arm_counts_its_seeds(arms: pd.DataFrame) -> None:
    assert arms["n"].tolist() == [2, 3]


def test_an_arm_has_the_difference_of_its_mean_to_the_baselines(arms: pd.DataFrame) -> None:
    assert arms["bbox/AP Δ random"].tolist() == [0.0, 14.0]


def test_an_arm_without_objects_of_a_size_class_has_no_mean_there(arms: pd.DataFrame) -> None:
    assert arms["bbox/APl mean"].isna().all()


def test_one_seed_has_no_standard_deviation() -> None:
    assert arm_table(cell_table([cell("pcd", 0, 10.0)]), ["pcd"])["bbox/AP std"].isna().all()


def test_without_the_baseline_there_is_no_difference() -> None:
    assert arm_table(cell_table([cell("pcd", 0, 10.0)]), ["random"])["bbox/AP Δ random"].isna().all()


def test_the_difference_is_taken_within_a_protocol() -> None:
    cells = [cell("random", 0, 5.0), cell("random", 0, 50.0, "c4"), cell("pcd", 0, 6.0), cell("pcd", 0, 60.0, "c4")]
    arms = arm_table(cell_table(cells), ["random"]).set_index(["arm", "protocol"])
    assert arms.loc[("pcd", "fpn"), "bbox/AP Δ random"] == 1.0
    assert arms.loc[("pcd", "c4"), "bbox/AP Δ random"] == 10.0


def test_a_protocol_without_the_baseline_has_no_difference() -> None:
    arms = arm_table(cell_table([cell("random", 0, 5.0), cell("pcd", 0, 6.0, "c4")]), ["random"])
    assert arms["bbox/AP Δ random"].isna().tolist() == [False, True]


def test_arms_keep_the_order_of_their_first_cells() -> None:
    cells = [cell("z", 0, 1.0), cell("a", 0, 2.0), cell("m", 0, 3.0), cell("a", 1, 4.0)]
    arms = arm_table(cell_table(cells), ["a"])
    assert arms["arm"].tolist() == ["z", "a", "m"]
    assert arms["bbox/AP mean"].tolist() == [1.0, 3.0, 3.0]


def test_the_printed_table_reads_as_written_by_hand(arms: pd.DataFrame) -> None:
    shown = printed_arms(arms, ["random"])
    assert shown.iloc[:, :9].to_numpy().tolist() == [
        ["random", "fpn", "2", "6.0 ± 1.4", "–", "6.0", "6.0", "6.0", "6.0"],
        ["pcd", "fpn", "3", "20.0 ± 10.0", "+14.0", "20.0", "20.0", "20.0", "20.0"],
    ]


def test_the_printed_mask_figures_stand_behind_the_box_figures(arms: pd.DataFrame) -> None:
    shown = printed_arms(arms, ["random"])
    assert shown.iloc[1, 9:12].tolist() == ["–", "12.2 ± 0.0", "+6.2"]
    assert list(shown.columns[9:12]) == ["box APl", "mask AP", "mask Δ random"]


def test_a_worse_arm_is_printed_with_a_minus() -> None:
    shown = printed_arms(arm_table(cell_table([cell("random", 0, 5.0), cell("pcd", 0, 3.0)]), ["random"]), ["random"])
    assert shown["box Δ random"].tolist() == ["–", "-2.0"]


def test_one_seed_is_printed_without_a_spread() -> None:
    shown = printed_arms(arm_table(cell_table([cell("pcd", 0, 10.0)]), ["pcd"]), ["pcd"])
    assert shown["box AP"].tolist() == ["10.0"]


def test_a_missing_baseline_is_printed_as_a_dash() -> None:
    shown = printed_arms(arm_table(cell_table([cell("pcd", 0, 10.0)]), ["random"]), ["random"])
    assert shown["box Δ random"].tolist() == ["–"]


def test_a_size_class_without_objects_is_printed_as_a_dash(cells: pd.DataFrame) -> None:
    assert printed_cells(cells)["bbox/APl"].tolist() == ["–"] * 5


def test_a_printed_cell_has_one_decimal(cells: pd.DataFrame) -> None:
    assert printed_cells(cells)["bbox/AP"].tolist() == ["5.0", "7.0", "10.0", "20.0", "30.0"]


def test_all_files_are_written_and_nothing_else(written: Path) -> None:
    names = {path.name for path in written.iterdir()}
    assert names == {"cells.csv", "arms.csv", "ap_table.json", "ap_table.md", "ap_table.html", "ap_summary.md"}


def test_cells_csv_reads_back(written: Path, cells: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(pd.read_csv(written / "cells.csv"), cells, check_dtype=False)


def test_arms_csv_reads_back(written: Path, arms: pd.DataFrame) -> None:
    read = pd.read_csv(written / "arms.csv")
    pd.testing.assert_frame_equal(read, arms, check_dtype=False, check_exact=False, rtol=0, atol=1e-4)


def test_the_json_has_the_figures_of_the_csv(written: Path) -> None:
    record = json.loads((written / "ap_table.json").read_text())
    for name in ("cells", "arms"):
        expected = pd.read_csv(written / f"{name}.csv")
        read = pd.DataFrame(record[name])[expected.columns].astype(expected.dtypes.to_dict())
        pd.testing.assert_frame_equal(read, expected, check_exact=False, rtol=0, atol=1e-4)


def test_the_json_writes_what_does_not_exist_as_null(written: Path) -> None:
    text = (written / "ap_table.json").read_text()
    assert json.loads(text)["cells"][0]["bbox/APl"] is None
    assert "NaN" not in text


def test_the_json_names_title_baselines_and_notes(written: Path) -> None:
    record = json.loads((written / "ap_table.json").read_text())
    assert (record["title"], record["baselines"]) == ("AP table of test", ["random"])
    assert record["notes"] == ["One note.", "Another note."]


def test_the_markdown_shows_the_printed_tables_to_the_letter(
    written: Path, cells: pd.DataFrame, arms: pd.DataFrame
) -> None:
    expected = [rows_of(printed_arms(arms, ["random"])), rows_of(printed_cells(cells))]
    assert markdown_tables(written / "ap_table.md") == expected


def test_the_html_shows_the_printed_tables_to_the_letter(
    written: Path, cells: pd.DataFrame, arms: pd.DataFrame
) -> None:
    html = (written / "ap_table.html").read_text()
    rows = [r.split("</tr>")[0] for r in html.split("<tr>")[1:]]
    texts = [[t.split(">", 1)[1].split("</t")[0] for t in row.split("<t")[1:]] for row in rows]
    assert texts == [*rows_of(printed_arms(arms, ["random"])), *rows_of(printed_cells(cells))]


@pytest.mark.parametrize("name", ["ap_table.md", "ap_table.html"])
def test_notes_stand_under_the_table(written: Path, name: str) -> None:
    text = (written / name).read_text()
    assert text.rindex("20.0") < text.index("One note.") < text.index("Another note.")


def test_the_html_escapes_what_came_from_outside(tmp_path: Path) -> None:
    cells = cell_table([cell(HOSTILE, 0, 1.0)])
    write_tables(tmp_path, HOSTILE, cells, arm_table(cells, [HOSTILE]), [HOSTILE], [HOSTILE])
    html = (tmp_path / "ap_table.html").read_text()
    assert "<script" not in html
    assert html.count("&lt;script&gt;") >= 6  # title twice, arm and Δ column, cell, note


def test_the_html_needs_nothing_from_elsewhere(written: Path) -> None:
    html = (written / "ap_table.html").read_text()
    assert "http" not in html
    assert "src=" not in html


def test_an_arm_has_a_difference_to_each_baseline() -> None:
    found = cell_table([cell("random", 0, 5.0), cell("supervised", 0, 8.0), cell("pcd", 0, 10.0)])
    arms = arm_table(found, ["random", "supervised"])
    assert arms["bbox/AP Δ supervised"].tolist() == [-3.0, 0.0, 2.0]
    shown = printed_arms(arms, ["random", "supervised"])
    assert shown[["box Δ random", "box Δ supervised"]].to_numpy().tolist() == [
        ["–", "-3.0"],
        ["+3.0", "–"],
        ["+5.0", "+2.0"],
    ]


def test_the_best_arm_and_those_within_its_noise_are_marked(arms: pd.DataFrame) -> None:
    standings = {("pcd", "fpn", "bbox/AP"): "best", ("random", "fpn", "bbox/AP"): "within noise"}
    shown = printed_arms(arms, ["random"], standings)  # type: ignore[arg-type]
    assert shown["box AP"].tolist() == ["6.0 ± 1.4 ~", "20.0 ± 10.0 *"]
    assert shown["mask AP"].tolist() == ["6.0 ± 1.4", "12.2 ± 0.0"]


# ---- holes


def hole(arm: str, seed: int, reason: str = "ended with code 1", protocol: str = "fpn") -> Hole:
    return Hole(cell=f"{arm}.{protocol}.seed{seed}", arm=arm, protocol=protocol, seed=seed, reason=reason)


def test_an_arm_says_how_many_of_its_seeds_there_are() -> None:
    found = cell_table([cell("random", 0, 5.0), cell("random", 1, 7.0), cell("pcd", 0, 10.0)])
    arms = arm_table(found, ["random"], [hole("pcd", 1), hole("pcd", 2)])
    assert arms[["arm", "n", "of"]].to_numpy().tolist() == [["random", 2, 2], ["pcd", 1, 3]]
    assert printed_arms(arms, ["random"])["n"].tolist() == ["2", "1 of 3"]
    assert arms["bbox/AP mean"].tolist() == [6.0, 10.0]


def test_an_arm_without_any_cell_is_a_row_of_dashes() -> None:
    arms = arm_table(cell_table([cell("random", 0, 5.0)]), ["random"], [hole("pcd", 0), hole("pcd", 1)])
    row = printed_arms(arms, ["random"]).iloc[1].tolist()
    assert row == ["pcd", "fpn", "0 of 2", *["–"] * (len(row) - 3)]


def test_without_the_baselines_cells_there_is_no_difference() -> None:
    arms = arm_table(cell_table([cell("pcd", 0, 5.0)]), ["random"], [hole("random", 0)])
    assert arms.set_index("arm")["bbox/AP Δ random"].isna().all()


def test_a_hole_of_one_protocol_leaves_the_others_whole() -> None:
    found = cell_table([cell("pcd", 0, 5.0), cell("pcd", 0, 6.0, "c4")])
    arms = arm_table(found, ["pcd"], [hole("pcd", 1, protocol="c4")])
    assert printed_arms(arms, ["pcd"])[["protocol", "n"]].to_numpy().tolist() == [["fpn", "1"], ["c4", "1 of 2"]]


def test_a_hole_is_a_row_of_dashes_among_the_cells() -> None:
    shown = printed_cells(cell_table([cell("pcd", 0, 10.0)]), [hole("pcd", 1)])
    assert shown.iloc[1].tolist() == ["pcd.fpn.seed1", "pcd", "fpn", "1", *["–"] * 12]


@pytest.mark.parametrize("name", ["ap_table.md", "ap_table.html", "ap_table.json"])
def test_holes_are_named_with_their_reasons_before_the_other_notes(tmp_path: Path, name: str) -> None:
    found, holes = cell_table([cell("pcd", 0, 10.0)]), [hole("pcd", 1, "killed by SIGKILL"), hole("random", 0)]
    write_tables(tmp_path, "t", found, arm_table(found, ["random"], holes), ["random"], ["A note."], holes)
    text = (tmp_path / name).read_text()
    told = ["Incomplete: 1 of 3 cells.", "pcd.fpn.seed1 has no figures: killed by SIGKILL", "random.fpn.seed0 has no"]
    places = [text.index(line) for line in (*told, "A note.")]
    assert places == sorted(places)


def test_cells_csv_has_the_cells_that_there_are_and_the_json_the_holes_as_well(tmp_path: Path) -> None:
    found = cell_table([cell("pcd", 0, 10.0)])
    write_tables(tmp_path, "t", found, arm_table(found, ["pcd"], [hole("pcd", 1)]), ["pcd"], [], [hole("pcd", 1)])
    assert pd.read_csv(tmp_path / "cells.csv")["cell"].tolist() == ["pcd.fpn.seed0"]
    record = json.loads((tmp_path / "ap_table.json").read_text())
    assert [entry["cell"] for entry in record["holes"]] == ["pcd.fpn.seed1"]


# ---- protocols with other figures


def probe(arm: str, top1: float) -> Cell:
    return Cell(cell=f"{arm}.linear.seed0", arm=arm, protocol="linear", seed=0, metrics={"top1": top1, "top5": None})


def test_a_column_is_there_for_what_any_protocol_gives_and_blank_elsewhere() -> None:
    table = cell_table([cell("pcd", 0, 10.0), probe("pcd", 60.0)])
    assert list(table.columns) == ["cell", "arm", "protocol", "seed", *METRICS, "top1", "top5"]
    assert table["top1"].isna().tolist() == [True, False]
    assert printed_cells(table)["bbox/AP"].tolist() == ["10.0", "–"]


def test_a_detector_of_boxes_alone_has_no_columns_of_masks() -> None:
    boxes = Cell(
        cell="a", arm="a", protocol="voc", seed=0, metrics={"bbox/AP": 1.0, "bbox/AP50": 2.0, "bbox/AP-cat": 3.0}
    )
    assert list(cell_table([boxes]).columns)[4:] == ["bbox/AP", "bbox/AP50"]


def test_accuracies_are_compared_with_the_baseline_within_their_protocol() -> None:
    table = cell_table([cell("random", 0, 5.0), probe("random", 50.0), cell("pcd", 0, 6.0), probe("pcd", 61.0)])
    shown = printed_arms(arm_table(table, ["random"]), ["random"]).set_index(["arm", "protocol"])
    assert shown.loc[("pcd", "linear"), ["top-1", "top-1 Δ random", "box AP", "box Δ random"]].tolist() == [
        *("61.0", "+11.0", "–", "–")
    ]
    assert shown.loc[("pcd", "fpn"), ["box Δ random", "top-1"]].tolist() == ["+1.0", "–"]


def test_the_summary_has_accuracies_too(tmp_path: Path) -> None:
    table = cell_table([probe("pcd", 61.0)])
    write_tables(tmp_path, "t", table, arm_table(table, ["pcd"]), ["pcd"], [])
    assert markdown_tables(tmp_path / "ap_summary.md") == [
        [["arm", "protocol", "n", "top-1", "top-1 Δ pcd"], ["pcd", "linear", "1", "61.0", "–"]]
    ]


def test_further_tables_stand_behind_the_cells_and_before_the_notes(tmp_path: Path) -> None:
    table = cell_table([cell("pcd", 0, 10.0)])
    further = {"Intervals": pd.DataFrame({"arm": ["pcd"], "AP": ["10.0 (9.1 to 10.9)"]})}
    write_tables(tmp_path, "t", table, arm_table(table, ["pcd"]), ["pcd"], ["A note."], further=further)
    for name in ("ap_table.md", "ap_table.html"):
        text = (tmp_path / name).read_text()
        places = [text.index(part) for part in ("pcd.fpn.seed0", "Intervals", "(9.1 to 10.9)", "A note.")]
        assert places == sorted(places)
    assert json.loads((tmp_path / "ap_table.json").read_text())["further"]["Intervals"] == [
        {"arm": "pcd", "AP": "10.0 (9.1 to 10.9)"}
    ]
