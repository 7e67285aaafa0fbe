"""The report of a finished benchmark from the store alone, whole and with holes in the store."""

import dataclasses
import json
import shlex
import shutil
import webbrowser
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from eval.report.content import Report
from flows import report as module
from flows.cli import main
from flows.home import home
from flows.report import gather_report, write_benchmark_report
from flows.run_record import RunRecord, write_record
from tests.eval.report.reports import png
from tests.flows.finished_smoke import CELL, ENVIRONMENT, finish_benchmark

BASELINE = "random.smoke_fpn.seed0"


def leave(folder: Path, name: str, content: bytes) -> None:
    """Put a file into a finished stage, as if the stage had left it."""
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][name] = {"bytes": len(content), "sha256": ""}
    (folder / name).write_bytes(content)
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.fixture
def record(pcd_home: Path) -> RunRecord:
    """With a table of two cells, two figures of it, and a receptive field."""
    record = dataclasses.replace(finish_benchmark()[1], environment=ENVIRONMENT | {"packages": {"torch": "2.14.0"}})
    table = {
        "title": "AP table of smoke",
        "printed": [{"arm": "pcd", "protocol": "smoke_fpn", "n": "1", "box AP": "12.3"}],
        "cells": [
            {"cell": cell, "arm": cell[:3], "protocol": "smoke_fpn", "seed": 0, "bbox/AP": 12.3456789012}
            for cell in (CELL, BASELINE)
        ],
        "notes": ["One seed."],
    }
    leave(Path(record.folder), "ap_table.json", json.dumps(table).encode())
    for name in ("ap_by_arm.png", "losses.png"):
        leave(Path(record.folder), name, png())
    leave(_stage(record, "pretrain:pcd.seed0", pcd_home), "receptive_field.png", png())
    write_record(record)
    return record


def _stage(record: RunRecord, stage: str, home: Path) -> Path:
    return home / "store" / stage.partition(":")[0] / record.stages[stage]


def _marks(report: Report, group: str) -> dict[str, tuple[str, str]]:
    return {setting.name: (setting.value, setting.mark) for setting in report.settings[group]}


def test_of_a_whole_store_nothing_is_missing(record: RunRecord) -> None:
    report = gather_report(record)
    assert report.missing == ()
    assert report.title == "Report of smoke"
    assert [table.heading for table in report.tables] == ["By arm", "By cell"]
    assert report.notes == ("One seed.",)
    assert [figure.name for figure in report.figures] == ["ap", "losses", "receptive-field-pcd-seed0"]
    assert "box AP 12.3" in report.figures[0].alt


def test_each_cell_has_its_chain_of_commands_in_the_order_of_time_and_its_trace(record: RunRecord) -> None:
    cell, baseline = gather_report(record).cells
    assert (cell.cell, cell.figures) == (CELL, "box AP 12.3, mask AP –")
    assert cell.trace == f"pcd trace {CELL} {record.key[:12]}"
    assert sorted(stage.stage for stage in cell.stages[:2]) == ["data", "teacher"]
    assert [stage.stage for stage in cell.stages[2:]] == ["pretrain:pcd.seed0", f"finetune:{CELL}"]
    spec = home() / "store" / "pretrain" / record.stages["pretrain:pcd.seed0"] / "spec.json"
    assert cell.stages[2].command == shlex.join(["python", "-m", "pcd.train", str(spec), "again-pretrain-pcd.seed0"])
    assert [stage.stage for stage in baseline.stages] == ["data", f"finetune:{BASELINE}"]


def test_a_stage_of_another_machine_or_commit_says_so(record: RunRecord) -> None:
    elsewhere = dataclasses.replace(record, environment=record.environment | {"processor": "B", "git_commit": "f00"})
    stage = gather_report(elsewhere).cells[0].stages[0]
    assert stage.differs == "processor a CPU, commit c0ffee with uncommitted changes"
    assert gather_report(record).cells[0].stages[0].differs == ""


def test_settings_are_flat_with_the_mark_of_their_values(record: RunRecord) -> None:
    report = gather_report(record)
    pretrain = _marks(report, "Pre-training")
    assert pretrain["pretrain.attention"] == ("true", "abstract")
    assert pretrain["pretrain.loss.temperature"] == ("0.2", "code")
    assert pretrain["pretrain.epochs"] == ("2.0", "ours")  # the profile departs from the released code
    assert _marks(report, "Benchmark")["arms"] == ('["pcd", "random"]', "–")
    assert {mark for _, mark in _marks(report, "How machines ran it; changes no result").values()} == {"–"}


def test_settings_of_another_version_are_shown_without_marks(record: RunRecord) -> None:
    report = gather_report(dataclasses.replace(record, settings={"name": "old", "pretrain": {"gone": [1, 2]}}))
    assert _marks(report, "Pre-training") == {"pretrain.gone": ("[1, 2]", "–")}
    assert report.missing == ("The marks of the settings: they are those of another version.",)


def test_the_environment_is_flat(record: RunRecord) -> None:
    assert gather_report(record).environment == {
        "git commit": "c0ffee", "git dirty": "True", "gpus": "none", "processor": "a CPU", "python": "3.11.9",
        "torch": "2.14.0",
    }  # fmt: skip


def test_holes_stand_among_the_cells_with_their_reasons(record: RunRecord) -> None:
    report = gather_report(dataclasses.replace(record, holes={f"finetune:{BASELINE}": "out of memory"}))
    assert [(cell.cell, cell.hole) for cell in report.cells] == [(CELL, ""), (BASELINE, "out of memory")]
    assert report.facts["Cells"] == "1 of 2"


def test_without_protocols_it_tells_of_the_pretraining(pcd_home: Path) -> None:
    record = finish_benchmark("protocols={}", "arms=[pcd]")[1]
    for name, content in (("backbone.safetensors", b"b"), ("receptive_field.png", png())):
        leave(Path(record.folder), name, content)
    report = gather_report(dataclasses.replace(record, environment=ENVIRONMENT))
    assert (report.missing, report.tables) == ((), ())
    assert [cell.cell for cell in report.cells] == ["pcd.seed0"]
    assert [figure.name for figure in report.figures] == ["receptive-field-pcd-seed0"]


# What is missing.


def test_a_cell_that_the_store_has_lost_is_one_line_and_the_others_stay(record: RunRecord, pcd_home: Path) -> None:
    shutil.rmtree(_stage(record, f"finetune:{CELL}", pcd_home))
    report = gather_report(record)
    assert [cell.cell for cell in report.cells] == [BASELINE]
    assert [line.partition(":")[0] for line in report.missing] == [f"Cell {CELL}"]
    assert "no longer whole in the store" in report.missing[0]


def test_a_table_that_says_something_else_than_its_cells_is_noticed(record: RunRecord) -> None:
    file = Path(record.folder) / "ap_table.json"
    file.write_text(file.read_text().replace("12.3456789012", "12.4444444444", 1))
    told = (f"Cell {CELL}: the table says something else than the stage that it comes from.",)
    assert gather_report(record).missing == told


def test_a_stage_below_a_cell_that_is_lost_is_one_line_and_has_no_command(record: RunRecord, pcd_home: Path) -> None:
    shutil.rmtree(_stage(record, "teacher", pcd_home))
    report = gather_report(record)
    assert report.missing == (f"Stage teacher ({record.stages['teacher'][:12]}): no longer whole in the store.",)
    stages = {stage.stage: stage.command for stage in report.cells[0].stages}
    assert stages["teacher"] == ""
    assert stages[f"finetune:{CELL}"] != ""


def test_a_figure_that_is_gone_is_one_line(record: RunRecord) -> None:
    (Path(record.folder) / "losses.png").unlink()
    report = gather_report(record)
    assert [figure.name for figure in report.figures] == ["ap", "receptive-field-pcd-seed0"]
    assert [line.partition(":")[0] for line in report.missing] == ["Figure “Losses”"]


@pytest.mark.parametrize("is_all_gone", [False, True])
def test_without_its_table_the_rest_of_the_report_stands(record: RunRecord, is_all_gone: bool, pcd_home: Path) -> None:
    if is_all_gone:
        shutil.rmtree(record.folder)
    else:
        (Path(record.folder) / "ap_table.json").write_text("{")
    report = gather_report(record)
    assert report.missing[0].startswith("The AP table: ap_table.json is gone or damaged")
    assert len(report.cells) == 2
    assert "receptive-field-pcd-seed0" in [figure.name for figure in report.figures]


def test_an_empty_store_leaves_a_report_all_the_same(record: RunRecord, pcd_home: Path) -> None:
    shutil.rmtree(pcd_home / "store")
    written = write_benchmark_report(dataclasses.replace(record, settings={}, environment={}))
    text = written.read_text()
    for line in ("The AP table", "The table’s figures", f"Cell {CELL}", "The settings", "The environment"):
        assert f"<li>{line.replace('’', '&#39;')}:" in text


def test_a_watch_that_is_not_there_is_one_line(record: RunRecord) -> None:
    watched = dataclasses.replace(record, stages={**record.stages, "watch:pcd.seed0": "0" * 64})
    told = ("AP against epoch of pcd.seed0: watch:pcd.seed0 is not in the store.",)
    assert gather_report(watched).missing == told


def test_what_was_watched_is_drawn(record: RunRecord, pcd_home: Path) -> None:
    folder = pcd_home / "store" / "watch" / ("0" * 64)
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps({"stage": "watch:pcd.seed0", "key": "0" * 64, "files": {}}))
    curve = [{"epoch": epoch, "metrics": {"bbox/AP": epoch}} for epoch in (1.0, 2.0)]
    leave(folder, "result.json", json.dumps({"curve": curve}).encode())
    watched = dataclasses.replace(record, stages={**record.stages, "watch:pcd.seed0": "0" * 64})
    assert "epochs" in [figure.name for figure in gather_report(watched).figures]


# The command.


def _invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["report", *arguments])


def test_the_command_prints_the_page(record: RunRecord) -> None:
    done = _invoke("smoke", "--format", "html")
    assert done.exit_code == 0
    assert "<h1>Report of smoke</h1>" in done.output


def test_the_command_writes_to_the_named_file(record: RunRecord, tmp_path: Path) -> None:
    assert _invoke("--format", "html", "--to", str(tmp_path / "a" / "page.html")).exit_code == 0
    assert (tmp_path / "a" / "page.html").exists()


def test_a_place_that_cannot_be_written_is_one_line(record: RunRecord, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = _invoke("--format", "html", "--to", str(tmp_path / "file" / "page.html"))
    assert done.exit_code == 2
    assert done.output.startswith("error: cannot write the report (")


@pytest.mark.parametrize("has_browser", [True, False])
def test_open_shows_it_in_the_browser_or_says_the_path(
    record: RunRecord, pcd_home: Path, monkeypatch: pytest.MonkeyPatch, has_browser: bool
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda url: opened.append(url) or has_browser)
    done = _invoke("--open")
    path = pcd_home / "reports" / f"smoke-{record.key[:12]}.html"
    assert (done.exit_code, opened) == (0, [path.as_uri()])
    assert f"report: {path}" in done.output
    assert ("no browser" in done.output) is not has_browser


def test_a_reruns_report_lies_beside_its_originals(record: RunRecord, pcd_home: Path) -> None:
    path = write_benchmark_report(dataclasses.replace(record, part="again-1"))
    assert path == pcd_home / "reports" / f"smoke-{record.key[:12]}.again-1.html"


def test_a_report_that_fails_is_no_failure_of_the_run(record: RunRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    from flows import benchmark

    def fail(record: RunRecord) -> Path:
        raise RuntimeError(module.__name__)

    monkeypatch.setattr(benchmark, "write_benchmark_report", fail)
    benchmark._write_report(record)
