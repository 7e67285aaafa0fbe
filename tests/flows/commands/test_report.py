import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from flows.cli import main
from tests.flows.finished_smoke import finish_benchmark

TABLE = {
    "title": "AP table of smoke", "baselines": ["random", "supervised"], "notes": ["A note."],
    "printed": [
        {"arm": "pcd", "protocol": "smoke_fpn", "n": "1"}
        | {"box AP": "12.3 *", "box Δ random": "+2.0", "box Δ supervised": "-1.0"}
    ],
}  # fmt: skip


@pytest.fixture
def table(pcd_home: Path) -> Path:
    """The folder of a finished benchmark's table."""
    _, record = finish_benchmark()
    folder = Path(record.folder)
    (folder / "ap_table.json").write_text(json.dumps(TABLE))
    (folder / "results.csv").write_text("cell,value\npcd.smoke_fpn.seed0,12.3\n")
    return folder


def _pcd(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def test_the_terminal_shows_the_difference_to_each_baseline(table: Path) -> None:
    told = _pcd("report").output
    assert "Δ random" in told
    assert "Δ supervised" in told
    assert "12.3 *" in told


def test_csv_is_the_long_frame_as_it_is_stored(table: Path) -> None:
    assert _pcd("report", "smoke", "--format", "csv").output == (table / "results.csv").read_text()


def test_a_format_goes_to_a_file_where_one_is_named(table: Path, tmp_path: Path) -> None:
    done = _pcd("report", "--format", "latex", "--to", str(tmp_path / "table.tex"))
    assert done.output == f"{tmp_path / 'table.tex'}\n"
    assert r"\begin{tabular}" in (tmp_path / "table.tex").read_text()


def test_a_file_without_a_format_is_refused(table: Path, tmp_path: Path) -> None:
    assert "--to needs --format" in _pcd("report", "--to", str(tmp_path / "x")).output


def test_a_file_of_the_table_that_is_gone_is_one_line(table: Path) -> None:
    (table / "results.csv").unlink()
    done = _pcd("report", "--format", "csv")
    assert done.exit_code == 2
    assert done.output.count("\n") == 1


@pytest.mark.parametrize("arguments", [[], ["--json"], ["--format", "latex"], ["--format", "json"]])
def test_a_damaged_table_is_one_line(table: Path, arguments: list[str]) -> None:
    (table / "ap_table.json").write_text("{")
    done = _pcd("report", *arguments)
    assert done.exit_code == 2
    assert done.output.count("\n") == 1
    assert "damaged" in done.output


def test_without_a_finished_benchmark_there_is_one_line(pcd_home: Path) -> None:
    done = _pcd("report", "nothing")
    assert done.exit_code == 2
    assert "no finished benchmark nothing here" in done.output
