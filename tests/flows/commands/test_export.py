"""Copying out of a store that was written by the store itself; the files' contents do not matter here."""

import shutil
from pathlib import Path

import pytest

from flows.commands.export import export_pretrained
from flows.planning.plan import make_plan
from flows.planning.stages import Plan, Stage
from flows.profiles import load_profile
from flows.run_record import RunRecord
from flows.store.recorded import stage_folder
from flows.store.store import Store, open_store
from flows.supervision.stage_command import write_spec
from pcd.errors import PCDError

FILES = ("MODEL_CARD.md", "backbone.safetensors", "backbone_detectron2.pth", "receptive_field.json")


def _commit(store: Store, plan: Plan, stage: Stage, inputs: dict[str, Path], files: dict[str, str]) -> Path:
    work = store.work_folder(stage)
    write_spec(stage, work, inputs, plan.benchmark.runtime)
    for name, content in files.items():
        (work / name).write_text(content)
    return store.commit(stage, {"seconds": 1.0})


def _finish(*overrides: str, part: str | None = None, shared: bool = False) -> RunRecord:
    """The record of a benchmark whose pre-trainings are in the store; files bear their stage's name.

    Args:
        shared: by a rerun in `part`, from the whole store.
    """
    plan, store = make_plan(load_profile("smoke", overrides)), open_store(part)
    of_pretraining = open_store() if shared else store
    folders = {
        stage.id: _commit(
            of_pretraining, plan, stage, {}, {name: f"{name} of {stage.id}" for name in (*FILES, "log.txt")}
        )
        for stage in plan.stages
        if stage.kind == "pretrain"
    }
    last = plan.stages[-1]
    folder = folders.get(last.id) or _commit(store, plan, last, {}, {})
    stages = {stage.id: stage.key for stage in plan.stages}
    return RunRecord("smoke", plan.key, str(folder), "", "", "", 0.0, stages=stages, part=part)


@pytest.fixture
def record(pcd_home: Path) -> RunRecord:
    return _finish()


@pytest.fixture
def two_seeds(pcd_home: Path) -> RunRecord:
    return _finish("seeds=[0, 1]")


def _contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_the_only_backbone_is_copied_with_its_card_and_no_more(record: RunRecord, tmp_path: Path) -> None:
    copied = export_pretrained(record, None, tmp_path / "new" / "folder")
    assert _contents(tmp_path / "new" / "folder") == {name: f"{name} of pretrain:pcd.seed0" for name in FILES}
    assert {path.name for path in copied} == set(FILES)


@pytest.mark.parametrize("cell", ["pcd.seed1", "pcd.smoke_fpn.seed1"])
def test_a_cell_or_its_pretraining_chooses_among_several(two_seeds: RunRecord, tmp_path: Path, cell: str) -> None:
    export_pretrained(two_seeds, cell, tmp_path / "to")
    assert (tmp_path / "to" / "MODEL_CARD.md").read_text() == "MODEL_CARD.md of pretrain:pcd.seed1"


def test_without_protocols_the_cell_chooses_as_well(pcd_home: Path, tmp_path: Path) -> None:
    pretrained = _finish("seeds=[0, 1]", "protocols={}")
    export_pretrained(pretrained, "pcd.seed0", tmp_path / "to")
    assert (tmp_path / "to" / "MODEL_CARD.md").read_text() == "MODEL_CARD.md of pretrain:pcd.seed0"
    assert _fails(pretrained, "nonsense", tmp_path / "to").startswith('unknown pre-trained cell "nonsense"')
    assert "choose by --cell: pcd.seed0, pcd.seed1" in _fails(pretrained, None, tmp_path / "to")


@pytest.mark.parametrize("shared", [False, True])
def test_of_a_rerun_its_own_part_and_what_it_shares_are_searched(pcd_home: Path, tmp_path: Path, shared: bool) -> None:
    export_pretrained(_finish(part="again", shared=shared), None, tmp_path / "to")
    assert (tmp_path / "to" / "MODEL_CARD.md").read_text() == "MODEL_CARD.md of pretrain:pcd.seed0"


def test_a_second_export_replaces_the_first(two_seeds: RunRecord, tmp_path: Path) -> None:
    export_pretrained(two_seeds, "pcd.seed0", tmp_path / "to")
    export_pretrained(two_seeds, "pcd.seed1", tmp_path / "to")
    assert set(_contents(tmp_path / "to").values()) == {f"{name} of pretrain:pcd.seed1" for name in FILES}


def _fails(record: RunRecord, cell: str | None, to: Path) -> str:
    with pytest.raises(PCDError) as caught:
        export_pretrained(record, cell, to)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_several_backbones_have_to_be_chosen_from(two_seeds: RunRecord, tmp_path: Path) -> None:
    told = _fails(two_seeds, None, tmp_path / "to")
    assert told == "benchmark smoke has 2 pre-trained backbones; choose by --cell: pcd.seed0, pcd.seed1"


@pytest.mark.parametrize("cell", ["pdc.seed0", "random.smoke_fpn.seed0"])
def test_a_cell_without_a_pretraining_is_answered_with_those_that_have_one(
    record: RunRecord, tmp_path: Path, cell: str
) -> None:
    told = _fails(record, cell, tmp_path / "to")
    assert told.startswith(f'unknown pre-trained cell "{cell}": did you mean "pcd.')
    assert "valid: pcd.seed0, pcd.smoke_fpn.seed0" in told


def test_a_benchmark_of_random_arms_has_nothing_to_export(pcd_home: Path, tmp_path: Path) -> None:
    record = _finish("arms=[random]")
    assert _fails(record, None, tmp_path / "to") == "benchmark smoke has no pre-trained backbone"


def _damage(folder: Path, how: str) -> None:
    path = folder / "backbone.safetensors"
    path.unlink() if how == "gone" else path.write_text("x" * path.stat().st_size)


@pytest.fixture
def pretraining(record: RunRecord) -> Path:
    folder = stage_folder(record, "pretrain:pcd.seed0")
    assert folder
    return folder


@pytest.mark.parametrize("how", ["gone", "changed"])
def test_a_damaged_file_is_not_passed_on(record: RunRecord, pretraining: Path, tmp_path: Path, how: str) -> None:
    _damage(pretraining, how)
    told = _fails(record, None, tmp_path / "to")
    assert told.endswith("backbone.safetensors is gone or damaged; run the benchmark smoke again")
    assert "backbone.safetensors" not in _contents(tmp_path / "to")
    assert not list((tmp_path / "to").glob(".*"))


def test_a_store_that_was_cleared_is_named(record: RunRecord, pretraining: Path, tmp_path: Path) -> None:
    shutil.rmtree(pretraining)
    told = _fails(record, None, tmp_path / "to")
    assert told == "pretrain:pcd.seed0 is no longer in the store; run the benchmark smoke again"
