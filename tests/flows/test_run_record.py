import json
from dataclasses import replace
from pathlib import Path

import pytest

from flows.run_record import NOT_ASKED_FOR, finished_record, latest_record
from pcd.errors import PCDError
from tests.flows.finished_smoke import finish_benchmark


@pytest.mark.parametrize("content", ["{", "[]", '{"name": "smoke"}', '{"name": '])
def test_a_damaged_record_is_told_and_hides_no_other(
    pcd_home: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    _, record = finish_benchmark()
    (pcd_home / "benchmarks" / "smoke-0000.json").write_text(content)
    assert latest_record() == record
    assert "smoke-0000.json is no record of a benchmark" in caplog.text


def test_a_record_that_another_run_removes_just_now_is_none(pcd_home: Path) -> None:
    _, record = finish_benchmark()
    (pcd_home / "benchmarks" / "gone.json").symlink_to(pcd_home / "nothing.json")
    assert latest_record() == record


def test_what_another_version_wrote_besides_is_left_out(pcd_home: Path) -> None:
    _, record = finish_benchmark()
    path = next((pcd_home / "benchmarks").glob("*.json"))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"weather": "fine"}))
    assert latest_record() == record


def test_where_no_benchmark_has_finished_the_error_says_what_to_run(pcd_home: Path) -> None:
    with pytest.raises(PCDError, match="no finished benchmark here; run one: pcd run demo"):
        finished_record()


def test_of_an_unknown_name_the_error_says_what_there_is(pcd_home: Path) -> None:
    finish_benchmark()
    with pytest.raises(PCDError, match="no finished benchmark smock here; there are: smoke"):
        finished_record("smock")


def test_a_record_of_a_part_says_which_cells_were_asked_for(pcd_home: Path) -> None:
    _, record = finish_benchmark()
    assert record.only == ()
    cell = "finetune:random.smoke_fpn.seed0"
    rest = {stage: key for stage, key in record.stages.items() if stage != cell}
    assert replace(record, stages=rest, holes={cell: NOT_ASKED_FOR}).only == ("pcd.smoke_fpn.seed0",)
    assert replace(record, holes={cell: "out of memory"}).only == ()  # one that failed is tried again


def test_a_record_without_the_tables_stage_has_no_table(pcd_home: Path) -> None:
    _, record = finish_benchmark()
    assert record.has_table
    assert not replace(record, stages={"pretrain:pcd.seed0": "0" * 64}).has_table
