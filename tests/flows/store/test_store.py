import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from flows.planning.plan import make_plan
from flows.planning.stages import Stage
from flows.profiles import load_profile
from flows.store.store import StageState, Store
from pcd.errors import StageStoppedError
from tests.patience import PATIENCE

ROOT = Path(__file__).parents[3]


@pytest.fixture
def stage() -> Stage:
    return make_plan(load_profile("smoke")).stages[0]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def _finish(store: Store, stage: Stage, content: bytes = b"12345") -> Path:
    work = store.work_folder(stage)
    (work / "deep").mkdir()
    (work / "deep" / "a.bin").write_bytes(content)
    return store.commit(stage, {"seconds": 1.5})


def test_a_committed_stage_is_found(store: Store, stage: Stage) -> None:
    finished = _finish(store, stage)
    assert store.find(stage) == finished
    assert store.obtain(stage) == finished
    assert store.state(stage) == StageState("cached")


def test_a_manifest_lists_files_with_size_and_hash(store: Store, stage: Stage) -> None:
    manifest = json.loads((_finish(store, stage) / "manifest.json").read_text())
    # sha256 of "12345"
    digest = "5994471abb01112afcc18159f6cc74b4f511b99806da59b3caf5a9c173cacfc5"
    assert manifest["files"] == {"deep/a.bin": {"bytes": 5, "sha256": digest}}
    assert (manifest["key"], manifest["seconds"]) == (stage.key, 1.5)


def test_a_manifest_says_what_its_key_is_a_hash_of(store: Store, stage: Stage) -> None:
    manifest = json.loads((_finish(store, stage) / "manifest.json").read_text())
    assert manifest["parts"] == json.loads(json.dumps(stage.parts))
    assert manifest["labels"] == stage.labels


def test_how_a_running_stage_fared_is_not_kept(store: Store, stage: Stage) -> None:
    for name in ("heartbeat.json", "activity.json", "checkpoint.json", ".result.json.part"):
        (store.work_folder(stage) / name).write_text("{}")
    folder = _finish(store, stage)
    assert {path.name for path in folder.iterdir()} == {"deep", "manifest.json"}


def test_work_that_is_not_finished_is_not_found_and_stays(store: Store, stage: Stage) -> None:
    (store.work_folder(stage) / "checkpoint.pt").write_bytes(b"x")
    assert store.find(stage) is None
    assert store.state(stage) == StageState("resumable")
    assert (store.work_folder(stage) / "checkpoint.pt").exists()


def test_a_checkpoints_step_is_told(store: Store, stage: Stage) -> None:
    assert store.state(stage) == StageState("to run")
    (store.work_folder(stage) / "checkpoint.json").write_text('{"step": 40}')
    assert store.state(stage) == StageState("resumable", 40)


def test_discarded_work_is_gone(store: Store, stage: Stage) -> None:
    store.discard_work(stage)
    (store.work_folder(stage) / "checkpoint.json").write_text('{"step": 40}')
    store.discard_work(stage)
    assert store.state(stage) == StageState("to run")
    assert list((store.root / stage.kind).iterdir()) == []


DAMAGES = ["cut", "remove", "no manifest", "broken manifest", "manifest of nothing"]


def _damage(folder: Path, damage: str) -> None:
    match damage:
        case "cut":
            (folder / "deep" / "a.bin").write_bytes(b"123")
        case "remove":
            (folder / "deep" / "a.bin").unlink()
        case "no manifest":
            (folder / "manifest.json").unlink()
        case "broken manifest":
            (folder / "manifest.json").write_text('{"files": ')
        case "manifest of nothing":
            (folder / "manifest.json").write_text("[]")
        case _:
            (folder / "deep" / "a.bin").write_bytes(b"1234x")


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_stage_is_not_found(store: Store, stage: Stage, damage: str) -> None:
    _damage(_finish(store, stage), damage)
    assert store.find(stage) is None


@pytest.mark.parametrize("damage", [*DAMAGES, "same size"])
def test_a_damaged_stage_is_not_obtained_but_moved_aside(store: Store, stage: Stage, damage: str) -> None:
    _damage(_finish(store, stage), damage)
    told: list[str] = []
    store.note = told.append
    assert store.obtain(stage) is None
    assert not store.folder(stage.kind, stage.key).exists()
    (aside,) = (store.root / stage.kind).glob(f".damaged-{stage.key}-*")
    file = "manifest.json" if "manifest" in damage else "deep/a.bin"
    assert json.loads((aside / "damaged.json").read_text()) == [file]
    assert told == [f"{stage.id} is damaged in the store ({file}); it was moved aside to {aside}"]


def test_a_manifest_cannot_point_out_of_its_folder(store: Store, stage: Stage) -> None:
    folder = _finish(store, stage)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"] = {"../outside": {"bytes": 0, "sha256": "0" * 64}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert store.find(stage) is None


def test_a_damaged_stage_is_replaced_by_the_next_commit(store: Store, stage: Stage) -> None:
    (_finish(store, stage) / "deep" / "a.bin").unlink()
    assert store.find(stage) is None
    finished = _finish(store, stage)
    assert store.find(stage) == finished
    assert [path.name for path in (store.root / stage.kind).iterdir()] == [stage.key]


def test_a_commit_replaces_what_was_computed_before(store: Store, stage: Stage) -> None:
    _finish(store, stage)
    finished = _finish(store, stage, b"afresh")
    assert store.obtain(stage) == finished
    assert (finished / "deep" / "a.bin").read_bytes() == b"afresh"


def test_all_finished_stages_are_listed_and_no_others(store: Store) -> None:
    data, teacher, pretrain, *_ = make_plan(load_profile("smoke")).stages
    folders = {_finish(store, data), _finish(store, teacher)}
    store.work_folder(pretrain)
    assert {folder for folder, _ in store.manifests()} == folders
    assert {manifest["stage"] for _, manifest in store.manifests()} == {"data", "teacher"}


COMPUTE_ONCE = """
import sys, time
from pathlib import Path
from flows.planning.plan import make_plan
from flows.profiles import load_profile
from flows.store.store import Store
store, stage = Store(Path(sys.argv[1])), make_plan(load_profile('smoke')).stages[0]
print('asks', flush=True)
with store.lock(stage, lambda: print('waits', flush=True)):
    if store.obtain(stage) is None:
        time.sleep(0.3)
        (store.work_folder(stage) / 'a.bin').write_bytes(b'1')
        store.commit(stage, {})
        print('computed', flush=True)
    else:
        print('found', flush=True)
"""


def test_a_second_flow_waits_until_the_first_has_committed(store: Store, stage: Stage) -> None:
    with store.lock(stage):
        other = _start(store)
        assert other.stdout is not None
        assert [other.stdout.readline() for _ in range(2)] == ["asks\n", "waits\n"]
        time.sleep(0.5)
        assert other.poll() is None
        with Store(store.root).unlocked(stage.kind, stage.key) as free:
            assert not free
        _finish(store, stage)
    assert other.communicate(timeout=PATIENCE)[0] == "found\n"
    with store.unlocked(stage.kind, stage.key) as free:
        assert free


def _start(store: Store, code: str = COMPUTE_ONCE) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", "-c", code, str(store.root)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_three_processes_compute_a_stage_once(store: Store, stage: Stage) -> None:
    ends = [process.communicate(timeout=PATIENCE)[0].split()[-1] for process in [_start(store) for _ in range(3)]]
    assert sorted(ends) == ["computed", "found", "found"]
    assert store.obtain(stage) is not None


def test_a_lock_goes_with_its_process(store: Store, stage: Stage) -> None:
    process = _start(store, COMPUTE_ONCE.replace("time.sleep(0.3)", "print('computes', flush=True); time.sleep(60)"))
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(2)] == ["asks\n", "computes\n"]
    process.kill()
    process.communicate()
    with store.lock(stage, lambda: pytest.fail("the lock outlived its process")):
        pass


def test_a_wait_ends_when_it_is_told_to(store: Store, stage: Stage) -> None:
    stop, waits = threading.Event(), threading.Event()
    caught: list[BaseException] = []

    def need() -> None:
        try:
            with Store(store.root).lock(stage, waits.set, stop):
                pass
        except StageStoppedError as error:
            caught.append(error)

    with store.lock(stage):
        thread = threading.Thread(target=need)
        thread.start()
        assert waits.wait(PATIENCE)
        stop.set()
        thread.join(10)
    assert [str(error) for error in caught] == [f"{stage.id} was stopped while another run computed it"]


def test_a_store_imports_neither_torch_nor_a_remotes_libraries(tmp_path: Path) -> None:
    code = COMPUTE_ONCE + "print([m for m in ('torch', 'fsspec', 's3fs', 'prefect', 'mlflow') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-2:] == ["computed", "[]"]
