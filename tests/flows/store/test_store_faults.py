"""A store that is killed, full, or not to be written to."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.patience import PATIENCE

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("scenario", ["commit", "replace", "move aside", "upload", "fetch"])
def test_killed_between_any_two_system_calls_a_stage_is_absent_or_whole_and_a_second_try_succeeds(
    tmp_path: Path, scenario: str
) -> None:
    command = [sys.executable, "-W", "error", "-m", "tests.flows.store.killed_store", str(tmp_path), scenario]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 10


ON_A_SMALL_DISK = """
import os, subprocess, sys
from pathlib import Path
from flows.planning.plan import make_plan
from flows.profiles import load_profile
from flows.store.remote_store import RemoteStore
from flows.store.store import Store
from pcd.errors import PCDError

home, other = Path(sys.argv[1]), Path(sys.argv[2])
mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(home)], capture_output=True)
if mounted.returncode:
    sys.exit("no mount")
stage = make_plan(load_profile("smoke")).stages[0]
store = Store(home / "store")

def refusal(act):
    try:
        act()
    except PCDError as error:
        return str(error).replace(str(home), "HOME")
    return "no error"

def fill():
    with open(home / "filler", "wb", buffering=0) as file:
        try:
            while file.write(b"0" * 4096):
                pass
        except OSError:
            pass

def locked():
    with store.lock(stage):
        pass
"""
TMPFS = pytest.mark.skipif(
    subprocess.run(
        ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, check=False
    ).returncode
    != 0,
    reason="this machine lets us mount nothing, not even in a namespace of our own",
)


def _on_a_small_disk(tmp_path: Path, code: str) -> list[str]:
    """The lines that `code` prints; the disk is gone with its process."""
    (tmp_path / "home").mkdir()
    (tmp_path / "other").mkdir()
    script = ["-W", "error", "-c", ON_A_SMALL_DISK + code, str(tmp_path / "home"), str(tmp_path / "other")]
    command = ["unshare", "-rm", sys.executable, *script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@TMPFS
def test_a_full_disk_is_named_in_one_line_and_with_space_the_commit_succeeds(tmp_path: Path) -> None:
    code = """
(store.work_folder(stage) / "a.bin").write_bytes(b"1" * 50_000)
fill()
print(refusal(lambda: store.commit(stage, {})))
print(store.find(stage))
(home / "filler").unlink()
print(store.commit(stage, {}) == store.obtain(stage))
"""
    told, found, whole = _on_a_small_disk(tmp_path, code)
    assert told.startswith(
        "no space left on the disk; free some (`pcd store gc`), or set PCD_HOME to another one: HOME"
    )
    assert (found, whole) == ("None", "True")


@TMPFS
def test_a_fetch_that_does_not_fit_is_named_in_one_line_and_leaves_no_stage(tmp_path: Path) -> None:
    code = """
source = Store(other / "store", RemoteStore((other / "remote").as_uri()))
(other / "remote").mkdir()
for name in ("a", "b", "c"):
    (source.work_folder(stage) / name).write_bytes(name.encode() * 100_000)
source.commit(stage, {})
store = Store(home / "store", source.exchange.remote)
print(refusal(lambda: store.obtain(stage)))
print(store.find(stage))
subprocess.run(["mount", "-o", "remount,size=2m", str(home)], check=True)
print(store.obtain(stage) == store.find(stage) != None)
"""
    told, found, whole = _on_a_small_disk(tmp_path, code)
    assert told.startswith(
        "no space left on the disk; free some (`pcd store gc`), or set PCD_HOME to another one: HOME"
    )
    assert (found, whole) == ("None", "True")


@TMPFS
def test_a_read_only_store_is_read_and_refuses_the_rest_in_one_line(tmp_path: Path) -> None:
    code = """
later = make_plan(load_profile("smoke")).stages[1]
(store.work_folder(stage) / "a.bin").write_bytes(b"1")
store.commit(stage, {})
(store.work_folder(later) / "a.bin").write_bytes(b"1")
subprocess.run(["mount", "-o", "remount,ro", str(home)], check=True)
print(store.obtain(stage) == store.find(stage) != None)
print(refusal(lambda: store.commit(later, {})))
stage = later
print(refusal(locked))
print(store.find(later))
"""
    found, commit, lock, later = _on_a_small_disk(tmp_path, code)
    assert (found, later) == ("True", "None")
    for told in (commit, lock):
        assert told.startswith("the file system is read-only; set PCD_HOME to a writable folder: HOME/store/")
