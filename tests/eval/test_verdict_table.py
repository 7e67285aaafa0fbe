"""The verdict table and its figure against verdicts made by hand."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from eval.verdict import CellRun, RunVerdict, judge
from eval.verdict_figure import draw_verdict
from eval.verdict_table import message_of, printed_verdicts, summary_of, verdict_frame, write_verdict

HOSTILE = "<script>|x"


def _run(cell: str, box: float | None, weights: str = "w", torch: str = "2.14", hole: str | None = None) -> CellRun:
    metrics = {"bbox/AP": box, "segm/AP": 20.0}
    basis = {"versions": {"torch": torch}, "source": {"a.py": torch, "b.py": torch}}
    return CellRun(cell=cell, group=cell, metrics=metrics, weights_sha256=weights, basis=basis, hole=hole)


@pytest.fixture(scope="module")
def verdict() -> RunVerdict:
    original = [_run(name, 40.0) for name in ("same", "near", "fell", "upgraded", "lost")]
    rerun = [
        _run("same", 40.0),
        _run("near", 40.1, "v"),
        _run("fell", 38.04, "v"),
        _run("upgraded", 30.0, "v", "2.15"),
        _run("lost", None, hole=f"killed by {HOSTILE}"),
    ]
    return judge(original, rerun, 0.3)


@pytest.fixture(scope="module")
def written(verdict: RunVerdict, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("verdict")
    write_verdict(folder, "Rerun of test", verdict, ["One note."])
    draw_verdict(verdict, folder / "verdict.png")
    return folder


def test_the_frame_has_both_aps_their_difference_and_the_tolerance(verdict: RunVerdict) -> None:
    row = verdict_frame(verdict).set_index("cell").loc["fell"]
    names = ["original", "rerun", "difference", "tolerance"]
    assert [row[f"bbox/AP {name}"] for name in names] == pytest.approx([40.0, 38.04, -1.96, 0.3])
    assert (row["verdict"], row["regressed"], row["bbox/AP tolerance from"]) == ("not reproduced", True, "stated noise")


def test_a_hole_has_no_figures_and_says_why(verdict: RunVerdict) -> None:
    row = verdict_frame(verdict).set_index("cell").loc["lost"]
    assert np.isnan(row["bbox/AP original"])
    assert (row["verdict"], row["reasons"]) == ("hole", f"rerun: killed by {HOSTILE}")


def test_the_printed_table_shows_before_and_after(verdict: RunVerdict) -> None:
    shown = printed_verdicts(verdict).set_index("cell")
    assert list(shown["verdict"]) == [
        *("identical", "reproduced", "not reproduced (regressed)", "not comparable (regressed)", "hole"),
    ]
    assert list(shown.loc["fell", ["box AP", "Δ box AP", "tolerance of box AP"]]) == [
        *("40.0 → 38.0", "-1.96", "± 0.30 (stated noise)"),
    ]
    assert shown.loc["lost", "box AP"] == "–"


def test_one_reason_of_each_kind_is_printed(verdict: RunVerdict) -> None:
    told = printed_verdicts(verdict).set_index("cell").loc["upgraded", "what differs, or is missing"]
    assert told == "source: a.py 2.14 -> 2.15 and 1 more; versions: torch 2.14 -> 2.15"


def test_the_message_has_the_counts_and_the_difference_of_each_cell_to_look_at(verdict: RunVerdict) -> None:
    first, *rest = message_of("demo", verdict).splitlines()
    assert first.startswith("rerun of demo: 1 identical, 1 reproduced, 1 not reproduced (regressed)")
    assert [line.partition(":")[0] for line in rest] == ["fell", "upgraded", "lost"]
    assert "box AP 40.00 -> 38.04 (-1.96, tolerance 0.30 by stated noise)" in rest[0]
    assert "versions: torch 2.14 -> 2.15" in rest[1]


def test_the_summary_begins_with_the_counts_and_is_narrow(verdict: RunVerdict) -> None:
    first, _, header, *_ = summary_of("demo", verdict).splitlines()
    assert first.startswith("**rerun of demo: 1 identical, 1 reproduced")
    assert [text.strip() for text in header.strip("|").split("|")] == ["cell", "verdict", "Δ box AP", "Δ mask AP"]


def test_a_long_message_is_cut_and_says_so() -> None:
    cells = [f"c{i}" for i in range(50)]
    verdict = judge([_run(c, 40.0) for c in cells], [_run(c, 1.0, "v") for c in cells], 0.3)
    assert message_of("x", verdict).splitlines()[-1] == "and 30 more cells"


def test_a_run_without_trouble_has_a_message_of_one_line() -> None:
    assert message_of("x", judge([_run("a", 40.0)], [_run("a", 40.0)], 0.3)) == "rerun of x: 1 identical"


def test_csv_json_markdown_and_html_are_written(written: Path, verdict: RunVerdict) -> None:
    assert len(pd.read_csv(written / "verdict.csv")) == 5
    record = json.loads((written / "verdict.json").read_text())
    assert (record["outcome"], record["is_failure"], record["notes"][0]) == ("not reproduced", True, "One note.")
    assert record["cells"][2]["differences"]["bbox/AP"]["tolerance"] == {"ap": 0.3, "source": "stated noise"}
    rows = [line for line in (written / "verdict.md").read_text().splitlines() if line.startswith("| ")]
    assert len(rows) == 1 + 5
    assert len({row.replace("\\|", "").count("|") for row in rows}) == 1


def test_names_of_others_are_escaped_in_html(written: Path) -> None:
    page = (written / "verdict.html").read_text()
    assert "&lt;script&gt;" in page
    assert "<script>" not in page


def test_the_figure_shows_the_regression_in_red(written: Path) -> None:
    with Image.open(written / "verdict.png") as file:
        pixels = np.asarray(file.convert("RGB")).astype(int)
    for colour in ((214, 39, 40), (31, 119, 180), (44, 160, 44)):  # regressed, identical, reproduced
        assert (abs(pixels - colour).max(axis=2) < 12).sum() > 40
