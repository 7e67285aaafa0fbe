import dataclasses
from pathlib import Path
from typing import Any

import pytest

from flows.planning.keys import key_of
from flows.planning.plan import make_plan
from flows.planning.stages import Stage
from flows.profiles import load_profile
from flows.store.store import Store
from flows.store.why import Difference, explain, in_words

CELL = "finetune:pcd.smoke_fpn.seed0"


def _stage(stage_id: str, *overrides: str) -> Stage:
    return next(s for s in make_plan(load_profile("smoke", overrides)).stages if s.id == stage_id)


def _with(stage: Stage, part: str, **changes: Any) -> Stage:
    """The stage as it would be if a part of its key were another; None takes it away."""
    kept = {name: value for name, value in (stage.parts[part] | changes).items() if value is not None}
    parts = {**stage.parts, part: kept}
    return dataclasses.replace(stage, parts=parts, key=key_of(parts))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def _finish(store: Store, stage: Stage, **record: Any) -> Path:
    (store.work_folder(stage) / "a.bin").write_bytes(b"12345")
    return store.commit(stage, record)


def test_a_stage_that_is_stored_needs_no_reason(store: Store) -> None:
    _finish(store, _stage(CELL))
    assert explain(_stage(CELL), store) == []


def test_a_stage_without_a_predecessor_never_ran(store: Store) -> None:
    _finish(store, _stage("finetune:random.smoke_fpn.seed0"))
    assert explain(_stage(CELL), store) == [Difference("never ran", CELL)]


def test_a_setting_is_told_with_its_old_and_new_value(store: Store) -> None:
    _finish(store, _stage(CELL))
    changed = _stage(CELL, "protocols.smoke_fpn.iterations=16")
    assert explain(changed, store) == [Difference("setting", "finetune.iterations", 8, 16)]
    assert in_words(explain(changed, store)[0]) == "setting finetune.iterations 8 -> 16"


def test_a_change_upstream_is_told_as_the_input_and_explained_there(store: Store) -> None:
    for stage_id in ("pretrain:pcd.seed0", CELL):
        _finish(store, _stage(stage_id))
    old, new = _stage("pretrain:pcd.seed0"), _stage("pretrain:pcd.seed0", "pretrain.epochs=3")
    assert explain(_stage(CELL, "pretrain.epochs=3"), store) == [Difference("input", old.id, old.key, new.key)]
    assert explain(new, store) == [Difference("setting", "pretrain.epochs", 2, 3)]


@pytest.mark.parametrize(
    ("before", "now", "words"),
    [("0" * 64, "1" * 64, "changed"), (None, "1" * 64, "added"), ("0" * 64, None, "removed")],
)
@pytest.mark.parametrize(("part", "what"), [("sources", "source"), ("files", "file")])
def test_a_file_is_told_by_its_name(
    store: Store, part: str, what: Any, before: str | None, now: str | None, words: str
) -> None:
    stage = _stage(CELL)
    _finish(store, _with(stage, part, **{"pcd/some.py": before}))
    differences = explain(_with(stage, part, **{"pcd/some.py": now}), store)
    assert differences == [Difference(what, "pcd/some.py", before, now)]
    assert in_words(differences[0]) == f"{what} pcd/some.py {words}"


def test_the_nearest_predecessor_is_the_one_compared_with(store: Store) -> None:
    _finish(store, _stage(CELL, "protocols.smoke_fpn.iterations=9"), finished=1.0)
    _finish(store, _stage(CELL, "protocols.smoke_fpn.iterations=10"), finished=3.0)
    _finish(store, _stage(CELL, "protocols.smoke_fpn.iterations=11"), finished=2.0)
    _finish(store, _stage(CELL, "protocols.smoke_fpn.iterations=12", "protocols.smoke_fpn.batch=2"), finished=4.0)
    assert explain(_stage(CELL), store) == [Difference("setting", "finetune.iterations", 10, 8)]


@pytest.mark.parametrize("obtained", [False, True])
def test_a_damaged_file_is_named(store: Store, obtained: bool) -> None:
    stage = _stage(CELL)
    (_finish(store, stage) / "a.bin").write_bytes(b"123")
    store.note = lambda _: None
    if obtained:  # and moved aside
        assert store.obtain(stage) is None
    assert explain(stage, store) == [Difference("damaged", "a.bin")]
    assert in_words(explain(stage, store)[0]) == "damaged: a.bin"


def test_a_stage_that_lost_its_manifest_is_damaged(store: Store) -> None:
    (_finish(store, _stage(CELL)) / "manifest.json").unlink()
    assert explain(_stage(CELL), store) == [Difference("damaged", "manifest.json")]


def test_a_stage_that_comes_meanwhile_is_seen(store: Store) -> None:
    changed = _stage(CELL, "protocols.smoke_fpn.iterations=16")
    assert explain(changed, store)[0].what == "never ran"
    _finish(store, _stage(CELL))
    assert explain(changed, store)[0].what == "setting"
