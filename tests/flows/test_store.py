import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows.plan import Stage, make_plan
from flows.profiles import load_profile
from flows.store import Store

ROOT = Path(__file__).parents[2]


@pytest.fixture
def stage() -> Stage:
    return make_plan(load_profile("smoke")).stages[0]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def _finish(store: Store, stage: Stage) -> Path:
    work = store.work_folder(stage)
    (work / "deep").mkdir()
    (work / "deep" / "a.bin").write_bytes(b"12345")
    return store.commit(stage, {"seconds": 1.5})


def test_a_committed_stage_is_found(store: Store, stage: Stage) -> None:
    finished = _finish(store, stage)
    assert store.find(stage) == finished


def test_a_manifest_lists_files_with_size_and_hash(store: Store, stage: Stage) -> None:
    manifest = json.loads((_finish(store, stage) / "manifest.json").read_text())
    # sha256 of "12345"
    digest = "5994471abb01112afcc18159f6cc74b4f511b99806da59b3caf5a9c173cacfc5"
    assert manifest["files"] == {"deep/a.bin": {"bytes": 5, "sha256": digest}}
    assert (manifest["key"], manifest["seconds"]) == (stage.key, 1.5)


def test_work_that_is_not_finished_is_not_found_and_stays(store: Store, stage: Stage) -> None:
    (store.work_folder(stage) / "checkpoint.pt").write_bytes(b"x")
    assert store.find(stage) is None
    assert store.state(stage) == "resumable"
    assert (store.work_folder(stage) / "checkpoint.pt").exists()


@pytest.mark.parametrize("damage", ["cut", "remove", "no manifest", "broken manifest"])
def test_a_damaged_stage_is_not_found(store: Store, stage: Stage, damage: str) -> None:
    folder = _finish(store, stage)
    match damage:
        case "cut":
            (folder / "deep" / "a.bin").write_bytes(b"123")
        case "remove":
            (folder / "deep" / "a.bin").unlink()
        case "no manifest":
            (folder / "manifest.json").unlink()
        case _:
            (folder / "manifest.json").write_text('{"files": ')
    assert store.find(stage) is None


def test_a_damaged_stage_is_replaced_by_the_next_commit(store: Store, stage: Stage) -> None:
    (_finish(store, stage) / "deep" / "a.bin").unlink()
    assert store.find(stage) is None
    finished = _finish(store, stage)
    assert store.find(stage) == finished


def test_a_second_flow_waits_until_the_first_has_committed(store: Store, stage: Stage) -> None:
    code = (
        "import sys; from pathlib import Path; from flows.plan import make_plan\n"
        "from flows.profiles import load_profile; from flows.store import Store\n"
        "store, stage = Store(Path(sys.argv[1])), make_plan(load_profile('smoke')).stages[0]\n"
        "print('asks', flush=True)\n"
        "with store.lock(stage): print(store.find(stage) is not None)"
    )
    with store.lock(stage):
        command = [sys.executable, "-c", code, str(store.root)]
        other = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert other.stdout is not None
        assert other.stdout.readline() == "asks\n"
        time.sleep(0.5)
        assert other.poll() is None
        _finish(store, stage)
    assert other.communicate(timeout=30)[0] == "True\n"
