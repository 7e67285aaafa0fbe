import json
from pathlib import Path
from typing import Any

import pytest

from eval.format_names import FORMATS
from eval.formats import as_latex, table_as
from pcd.errors import PCDError

RECORD: dict[str, Any] = {
    "title": "AP table of my_set",
    "notes": ["One seed & 50 %."],
    "baselines": ["random"],
    "printed": [
        {"arm": "pcd", "protocol": "shapes_fpn", "n": "3", "box AP": "25.2 ± 1.8 *", "box Δ random": "+0.8"},
        {"arm": "seed", "protocol": "shapes_c4", "n": "3", "box AP": "24.1 ~", "box Δ random": "–"},
    ],
}


def test_latex_escapes_names_and_says_its_signs_in_its_own_words() -> None:
    text = as_latex(RECORD)
    assert r"pcd & shapes\_fpn & 3 & box & \textbf{25.2 $\pm$ 1.8} & +0.8 \\" in text
    assert r"seed & shapes\_c4 & 3 & box & 24.1$^{\sim}$  & -- \\" in text
    assert r"AP & $\Delta$ random \\" in text
    assert r"\caption{AP table of my\_set}" in text
    assert r"\label{tab:my_set}" in text
    assert r"\toprule" in text
    assert text.isascii()


def test_latex_labels_an_incomplete_table_by_its_benchmark() -> None:
    assert r"\label{tab:demo}" in as_latex(RECORD | {"title": "AP table of demo (3 of 4 cells)"})


def test_latex_names_a_protocol_that_all_share_in_the_caption_alone() -> None:
    text = as_latex(RECORD | {"printed": RECORD["printed"][:1]})
    assert r"\caption{AP table of my\_set, by shapes\_fpn}" in text
    assert "protocol &" not in text


def test_latex_keeps_the_notes_as_comments() -> None:
    assert as_latex(RECORD).endswith("% One seed & 50 %.\n")


@pytest.mark.parametrize(
    ("name", "file"),
    [("csv", "results.csv"), ("json", "ap_table.json"), ("md", "ap_table.md")],
)
def test_the_others_are_the_stored_files(tmp_path: Path, name: str, file: str) -> None:
    (tmp_path / file).write_text('{"title": "as it is"}')
    assert table_as(name, tmp_path) == '{"title": "as it is"}'


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_that_is_gone_is_told_in_one_line(tmp_path: Path, name: str) -> None:
    with pytest.raises(PCDError, match="No such file or directory; run the benchmark again"):
        table_as(name, tmp_path)


@pytest.mark.parametrize("name", ["json", "latex"])
def test_a_damaged_table_is_told_in_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "ap_table.json").write_text('{"title": ')
    with pytest.raises(PCDError, match="is damaged; run the benchmark again"):
        table_as(name, tmp_path)


def test_latex_is_made_from_the_stored_json(tmp_path: Path) -> None:
    (tmp_path / "ap_table.json").write_text(json.dumps(RECORD))
    assert table_as("latex", tmp_path) == as_latex(RECORD)
