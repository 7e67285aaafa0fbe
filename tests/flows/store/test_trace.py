import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from flows.cli import main
from flows.run_record import RunRecord
from flows.store.trace import Origin, trace
from pcd.errors import PCDError
from pcd.teachers.registry import TEACHERS
from tests.flows.finished_smoke import CELL, finish_benchmark


@pytest.fixture
def record(pcd_home: Path) -> RunRecord:
    return finish_benchmark()[1]


def _walk(origin: Origin) -> dict[str, Origin]:
    return {origin.stage: origin} | {k: v for of in origin.inputs.values() for k, v in _walk(of).items()}


def test_an_ap_figure_leads_back_to_teacher_data_and_seeds(record: RunRecord) -> None:
    found = trace(record, CELL)
    assert found.figures == {"bbox/AP": 12.3456789012345, "segm/AP": None}
    assert found.is_as_in_table
    stages = _walk(found.origin)
    assert list(stages) == [f"finetune:{CELL}", "data", "pretrain:pcd.seed0", "teacher"]
    assert {name: origin.key for name, origin in stages.items()} == {name: record.stages[name] for name in stages}
    assert stages["teacher"].facts == {
        "teacher": "demo", "url": TEACHERS["demo"].url, "obtained from": "https://mirror.example/t.pth",
        "sha256": "7" * 64, "licence": "Apache-2.0",
    }  # fmt: skip
    assert stages["data"].facts["fingerprint"] == "f" * 64
    assert (stages["data"].facts["seed"], stages["pretrain:pcd.seed0"].facts["seed"], found.origin.facts["seed"]) == (
        0,
    ) * 3
    # sha256 of "b"
    digest = "3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d"
    assert stages["pretrain:pcd.seed0"].facts["backbone.safetensors"] == digest
    teacher = stages["teacher"]
    assert teacher.folder is not None
    # It ran in a work folder, which is gone: the spec is where the stage lies.
    assert teacher.command == [
        "python",
        "-m",
        "pcd.teachers.stage",
        str(Path(teacher.folder) / "spec.json"),
        "again-teacher",
    ]
    assert teacher.environment["git_commit"] == "c0ffee"


def test_a_table_that_says_something_else_is_noticed(record: RunRecord) -> None:
    table = Path(record.folder) / "ap_table.json"
    table.write_text(table.read_text().replace("12.3456789012", "12.4"))
    assert trace(record, CELL).is_as_in_table is False


def test_a_pretraining_is_traced_as_well(record: RunRecord) -> None:
    found = trace(record, "pcd.seed0")
    assert found.figures == {}
    assert (found.table, found.is_as_in_table) == (None, None)
    assert set(_walk(found.origin)) == {"pretrain:pcd.seed0", "data", "teacher"}


def test_a_random_arm_has_no_teacher(record: RunRecord) -> None:
    assert set(_walk(trace(record, "random.smoke_fpn.seed0").origin)) == {"finetune:random.smoke_fpn.seed0", "data"}


def test_a_stage_that_is_gone_ends_the_trail_and_not_the_trace(record: RunRecord, pcd_home: Path) -> None:
    shutil.rmtree(pcd_home / "store" / "teacher")
    teacher = _walk(trace(record, CELL).origin)["teacher"]
    assert (teacher.folder, teacher.key) == (None, record.stages["teacher"])


def test_a_misspelt_cell_is_answered_with_the_nearest(record: RunRecord) -> None:
    with pytest.raises(PCDError, match=f'unknown cell of smoke "pcd.smoke_fnp.seed0": did you mean "{CELL}"'):
        trace(record, "pcd.smoke_fnp.seed0")


def test_a_cell_that_is_no_longer_stored_is_named(record: RunRecord, pcd_home: Path) -> None:
    (pcd_home / "store" / "finetune" / record.stages[f"finetune:{CELL}"] / "result.json").unlink()
    with pytest.raises(PCDError, match=f"finetune:{CELL} .* is no longer whole in the store; run the benchmark again"):
        trace(record, CELL)


def test_the_command_prints_the_whole_way_once(record: RunRecord) -> None:
    done = CliRunner().invoke(main, ["trace", CELL])
    assert done.exit_code == 0, done.output
    for wanted in (
        "bbox/AP 12.346, segm/AP –", "the table says the same", TEACHERS["demo"].url or "", "7" * 64,
        "licence: Apache-2.0", "git commit: c0ffee with uncommitted changes",
        "python -m pcd.train /", f"{record.stages['pretrain:pcd.seed0']}/spec.json", *record.stages["teacher"][:12],
    ):  # fmt: skip
        assert wanted in done.output
    assert done.output.count("fingerprint: ") == 1


def test_the_command_prints_json_for_a_benchmark_by_name(record: RunRecord) -> None:
    done = CliRunner().invoke(main, ["trace", CELL, "smoke", "--json"])
    assert json.loads(done.output) == json.loads(json.dumps(dataclasses.asdict(trace(record, CELL))))
    other = CliRunner().invoke(main, ["trace", CELL, "paper"])
    assert other.exit_code == 2
    assert "no finished benchmark paper here" in other.output
