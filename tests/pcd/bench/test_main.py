import json
from pathlib import Path

import pytest
import torch

from pcd.bench import __main__ as bench
from pcd.bench.harness import Row, Skipped
from pcd.bench.suites import SUITES


def _one_row(device: torch.device) -> list[Row | Skipped]:
    return [Row(f"a row on {device}", 1.0, 2.0, "s", 2.0)]


def _another(device: torch.device) -> list[Row | Skipped]:
    return [Skipped("another", "not here")]


@pytest.fixture(autouse=True)
def _two_small_suites(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(SUITES):
        monkeypatch.delitem(SUITES, name)
    monkeypatch.setitem(SUITES, "one", _one_row)
    monkeypatch.setitem(SUITES, "another", _another)


def _names_in(path: Path) -> list[str]:
    return [row["name"] for row in json.loads(path.read_text())["rows"]]


def test_all_suites_run_by_default(tmp_path: Path) -> None:
    assert bench.main(["--device", "cpu", "--json", str(tmp_path / "x.json")]) == 0
    assert _names_in(tmp_path / "x.json") == ["a row on cpu", "another"]


def test_only_the_suites_asked_for_run(tmp_path: Path) -> None:
    bench.main(["--device", "cpu", "--only", "another", "--json", str(tmp_path / "x.json")])
    assert _names_in(tmp_path / "x.json") == ["another"]


def test_a_misspelt_suite_is_the_users_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["--only", "anothr"]) == 2
    assert 'did you mean "another"?' in capsys.readouterr().err


def test_the_table_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    bench.main(["--device", "cpu"])
    assert "2.00×" in capsys.readouterr().out
