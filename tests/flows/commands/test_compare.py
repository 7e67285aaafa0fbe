import json
from pathlib import Path

from click.testing import CliRunner, Result

from flows.cli import main
from tests.flows.finished_smoke import finish_benchmark


def _pcd(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def test_two_runs_are_compared_cell_by_cell_and_by_what_they_rest_on(pcd_home: Path) -> None:
    _, first = finish_benchmark()
    _, second = finish_benchmark("pretrain.epochs=3")
    done = _pcd("compare", first.key, second.key)
    assert done.exit_code == 0, done.output
    assert "12.3" in done.output
    assert "+0.0" in done.output
    assert "pretrain.epochs: 2.0 -> 3.0" in done.output


def test_a_run_differs_in_nothing_from_itself(pcd_home: Path) -> None:
    _, record = finish_benchmark()
    assert "Nothing else differs" in _pcd("compare", record.key, record.key).output


def test_machines_get_figures_and_changes(pcd_home: Path) -> None:
    _, first = finish_benchmark()
    _, second = finish_benchmark("pretrain.epochs=3")
    told = json.loads(_pcd("compare", first.key, second.key, "--json").output)
    assert told["runs"] == {"before": first.key, "after": second.key}
    assert told["changes"]["settings"] == ["pretrain.epochs: 2.0 -> 3.0 (pcd.smoke_fpn)"]
    assert {row["arm"] for row in told["figures"]} == {"pcd", "random"}


def test_a_run_that_is_not_there_is_one_line(pcd_home: Path) -> None:
    _, record = finish_benchmark()
    done = _pcd("compare", record.key, "nothing")
    assert done.exit_code == 2
    assert done.output.startswith("error: no finished benchmark nothing here")
    assert done.output.count("\n") == 1
