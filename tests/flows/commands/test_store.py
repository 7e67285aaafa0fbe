import dataclasses
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from flows.cli import main
from flows.planning.plan import make_plan
from flows.planning.stages import Plan
from flows.profiles import load_profile
from flows.run_record import latest_record, write_record
from flows.store.store import open_store
from tests.flows.finished_smoke import CELL, finish, finish_benchmark


@pytest.fixture
def plan(pcd_home: Path) -> Plan:
    return finish_benchmark()[0]


def _store(*arguments: str, code: int = 0) -> Result:
    done = CliRunner().invoke(main, ["store", *arguments])
    assert done.exit_code == code, done.output
    return done


def _json(*arguments: str, code: int = 0) -> Any:
    return json.loads(_store(*arguments, "--json", code=code).stdout)


def _key(plan: Plan, stage_id: str) -> str:
    return next(stage.key for stage in plan.stages if stage.id == stage_id)


@pytest.fixture
def remote(pcd_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "remote").mkdir()
    monkeypatch.setenv("PCD_STORE", (tmp_path / "remote").as_uri())
    return tmp_path / "remote"


# ls, show, why


def test_all_finished_stages_are_listed_with_who_computed_them(plan: Plan) -> None:
    rows = _json("ls")
    assert {(row["id"], row["key"]) for row in rows} == {(stage.id, stage.key) for stage in plan.stages}
    assert {(row["benchmark"], row["where"]) for row in rows} == {("smoke", "local")}
    text = _store("ls").output
    assert _key(plan, "teacher")[:12] in text
    assert "6 stages, 0 interrupted" in text


def test_interrupted_work_is_listed_with_its_step(plan: Plan) -> None:
    later = make_plan(load_profile("smoke", ["seeds=[1]"])).stages[2]
    work = open_store().work_folder(later)
    (work / "spec.json").write_text(json.dumps({"stage": later.id}))
    (work / "checkpoint.json").write_text('{"step": 6}')
    (row,) = [row for row in _json("ls") if row["where"] == "work"]
    assert (row["id"], row["key"], row["step"]) == ("pretrain:pcd.seed1", later.key, 6)
    assert "interrupted at step 6" in _store("ls").output


def test_where_a_stage_lies_is_told(remote: Path, plan: Plan, pcd_home: Path) -> None:
    data, teacher = _key(plan, "data"), _key(plan, "teacher")
    shutil.rmtree(pcd_home / "store" / "data" / data)
    (remote / "teacher" / f"{teacher}.json").unlink()
    where = {row["id"]: row["where"] for row in _json("ls")}
    assert (where["data"], where["teacher"], where["aggregate"]) == ("remote", "local", "both")


@pytest.mark.parametrize("how", ["key", "beginning", "id", "cell"])
def test_a_stage_is_shown_by_any_of_its_names(plan: Plan, how: str) -> None:
    key = _key(plan, f"finetune:{CELL}")
    name = {"key": key, "beginning": key[:8], "id": f"finetune:{CELL}", "cell": CELL}[how]
    shown = _json("show", name)
    assert shown["manifest"]["key"] == key
    text = _store("show", name).output
    assert "took         3.3 min" in text
    assert "git commit   c0ffee" in text
    assert '"iterations": 8' in text
    assert "result.json" in text


def test_a_misspelt_stage_is_answered_with_the_nearest(plan: Plan) -> None:
    told = _store("show", "pretrain:pdc.seed0", code=2).output
    assert told.startswith('error: no stored stage or key "pretrain:pdc.seed0": did you mean "pretrain:pcd.seed0"? ')


def test_why_names_what_changed_and_nothing_else(plan: Plan) -> None:
    assert _store("why", "smoke").output == "all 6 stages are in the store\n"
    change = ("--set", "protocols.smoke_fpn.iterations=16")
    lines = _store("why", "smoke", *change).output.splitlines()
    assert lines[:4] == [
        f"finetune:{CELL}",
        "  setting finetune.iterations 8 -> 16",
        "finetune:random.smoke_fpn.seed0",
        "  setting finetune.iterations 8 -> 16",
    ]
    told = {row["stage"]: row["differences"] for row in _json("why", "smoke", CELL, "data", *change)}
    assert told == {
        "data": [],
        f"finetune:{CELL}": [{"what": "setting", "name": "finetune.iterations", "old": 8, "new": 16}],
    }


def test_why_without_a_profile_takes_the_settings_of_the_last_benchmark(plan: Plan, pcd_home: Path) -> None:
    (pcd_home / "store" / "teacher" / _key(plan, "teacher") / "result.json").unlink()
    assert _store("why", "teacher").output == "teacher\n  damaged: result.json\n"
    assert 'unknown stage or profile "teachr": did you mean "teacher"?' in _store("why", "teachr", code=2).output


# verify, push


def test_a_damaged_file_of_the_same_size_is_named_and_the_exit_code_says_so(plan: Plan, pcd_home: Path) -> None:
    assert _store("verify").output.endswith("0 damaged\n")
    key = _key(plan, "pretrain:pcd.seed0")
    (pcd_home / "store" / "pretrain" / key / "backbone.safetensors").write_text("x")
    assert f"FAULT pretrain:pcd.seed0 {key[:12]} (local): backbone.safetensors" in _store("verify", code=1).output
    faults = _json("verify", "pretrain:pcd.seed0", code=1)["faults"]
    assert faults == [{"stage": "pretrain:pcd.seed0", "key": key, "where": "local", "files": ["backbone.safetensors"]}]
    assert _json("verify", "data")["faults"] == []


def test_what_is_damaged_in_the_remote_is_found_and_replaced(remote: Path, plan: Plan) -> None:
    assert _json("verify", "--remote")["faults"] == []
    key = _key(plan, "pretrain:pcd.seed0")
    (there,) = (remote / "pretrain" / key).glob("*/backbone.safetensors")
    there.write_text("x")
    assert _json("verify")["faults"] == []
    (fault,) = _json("verify", "--remote", code=1)["faults"]
    assert (fault["where"], fault["files"]) == ("remote", ["backbone.safetensors"])
    assert [row["id"] for row in _json("push", "--check")["uploaded"]] == ["pretrain:pcd.seed0"]
    assert _json("verify", "--remote")["faults"] == []


def test_push_uploads_what_was_computed_before_there_was_a_remote(plan: Plan, request: pytest.FixtureRequest) -> None:
    assert "set PCD_STORE to its URL" in _store("push", code=2).output
    request.getfixturevalue("remote")
    assert {row["id"] for row in _json("push")["uploaded"]} == {stage.id for stage in plan.stages}
    assert _json("push")["uploaded"] == []
    assert {row["where"] for row in _json("ls")} == {"both"}


def test_a_remote_that_cannot_be_used_is_one_line(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PCD_STORE", "ftp://me:hidden@127.0.0.1:9/store")
    told = _store("ls", code=2).output
    assert told.startswith("error: the remote store ftp://127.0.0.1:9/store does not answer (")
    assert told.count("\n") == 1
    assert "hidden" not in told


# gc


def _age(folder: Path, days: float) -> None:
    then = time.time() - days * 86400
    for path in (folder, *folder.rglob("*")):
        os.utime(path, (then, then))


@pytest.fixture
def old(plan: Plan) -> dict[str, Path]:
    """A stage and work that no run names, 30 days old as all the rest is."""
    store = open_store()
    stage, work = make_plan(load_profile("smoke", ["seeds=[1]", "data.seed=1"])).stages[0::2][:2]
    folders = {"stage": finish(store, stage), "work": store.work_folder(work)}
    (folders["work"] / "checkpoint.pt").write_bytes(b"123")
    for folder in store.root.glob("*/*"):
        _age(folder, 30)
    return folders


def test_gc_says_what_would_go_and_deletes_nothing_before_it_is_told_to(old: dict[str, Path], plan: Plan) -> None:
    told = _json("gc")
    assert {item["path"] for item in told["items"]} == {str(folder) for folder in old.values()}
    assert {item["what"] for item in told["items"]} == {"stage of no run", "interrupted work"}
    assert all(folder.exists() for folder in old.values())
    assert _json("gc", "--yes")["bytes"] == told["bytes"] > 0
    assert not any(folder.exists() for folder in old.values())
    store = open_store()
    assert all(store.obtain(stage) for stage in plan.stages)
    assert _store("gc").output == "0 items, 0 B would be deleted\n"


def test_gc_leaves_what_is_young(old: dict[str, Path]) -> None:
    assert _json("gc", "--older-than", "31")["items"] == []
    _age(old["stage"], 3)
    assert [item["path"] for item in _json("gc")["items"]] == [str(old["work"])]
    assert len(_json("gc", "--older-than", "2")["items"]) == 2


def test_gc_leaves_what_a_run_under_way_names(old: dict[str, Path], pcd_home: Path) -> None:
    (pcd_home / "active").mkdir()
    run = {"stages": {"data": {"kind": "data", "key": old["stage"].name}}}
    (pcd_home / "active" / "1.json").write_text(json.dumps(run))
    assert [item["path"] for item in _json("gc")["items"]] == [str(old["work"])]


def test_gc_leaves_what_is_being_computed(old: dict[str, Path], pcd_home: Path) -> None:
    work = make_plan(load_profile("smoke", ["seeds=[1]", "data.seed=1"])).stages[2]
    with open_store().lock(work):
        assert [item["path"] for item in _json("gc")["items"]] == [str(old["stage"])]


def test_gc_refuses_to_guess_what_an_unreadable_record_names(old: dict[str, Path], pcd_home: Path) -> None:
    (pcd_home / "benchmarks" / "broken.json").write_text("{")
    told = _store("gc", "--yes", code=2).output
    assert "broken.json, so it is unknown which stages it names; mend or delete it" in told
    assert all(folder.exists() for folder in old.values())


def test_gc_takes_what_killed_processes_left_of_any_age(plan: Plan, pcd_home: Path) -> None:
    key = _key(plan, "data")
    for name in (f".fetch-{key}", f".gone-{key}-1", f".gone-work-{key}-2"):
        (pcd_home / "store" / "data" / name).mkdir()
    assert len(_json("gc", "--yes")["items"]) == 3
    assert {path.name for path in (pcd_home / "store" / "data").iterdir()} == {key, f".lock-{key}"}


def test_gc_takes_a_reruns_part_that_is_recorded_nowhere_and_leaves_its_verdict(plan: Plan, pcd_home: Path) -> None:
    record = latest_record()
    assert record is not None
    write_record(dataclasses.replace(record, part="recorded"))
    (pcd_home / "active").mkdir()
    (pcd_home / "active" / "1.json").write_text('{"store_part": "running", "stages": {}}')
    for part in ("recorded", "running", "interrupted", "judged"):
        finish(open_store(part), plan.stages[0])
    (pcd_home / "reruns" / "judged" / "verdict").mkdir()
    assert _json("gc")["items"] == []  # they are young
    told = _json("gc", "--older-than", "0", "--yes")["items"]
    assert {(item["what"], Path(item["path"]).parent.name) for item in told} == {
        ("part of no rerun", "interrupted"), ("part of no rerun", "judged")
    }  # fmt: skip
    left = {str(path.relative_to(pcd_home / "reruns")) for path in (pcd_home / "reruns").glob("*/*")}
    assert left == {"judged/verdict", "recorded/store", "running/store"}


def test_gc_ends_the_deletion_of_a_part_that_was_killed(plan: Plan, pcd_home: Path) -> None:
    (pcd_home / "reruns" / "again" / ".gone-store-1" / "data").mkdir(parents=True)
    assert "half deleted          reruns/again/.gone-store-1" in _store("gc", "--yes").output
    assert list((pcd_home / "reruns").iterdir()) == []


def test_a_reruns_part_is_looked_at_by_name(plan: Plan, pcd_home: Path) -> None:
    finish(open_store("again"), plan.stages[0])
    assert [row["id"] for row in _json("ls", "--part", "again")] == ["data"]
    assert 'unknown part of the store "agian": did you mean "again"?' in _store("ls", "--part", "agian", code=2).output


def test_an_empty_home_has_an_empty_store(pcd_home: Path) -> None:
    assert _json("ls") == []
    assert _json("verify")["faults"] == []
    assert _json("gc")["items"] == []
