"""Leases of devices, between threads and between real processes that are killed."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from flows.planning.plan import make_plan
from flows.planning.stages import Stage
from flows.profiles import load_profile
from flows.settings import Runtime
from flows.supervision.devices import DEVICES, LEASE, lease, lease_devices, lock_folder, waiting_leases
from flows.supervision.inventory import Inventory
from pcd.errors import PCDError, StageStoppedError
from tests.conftest import ROOT
from tests.patience import PATIENCE

FOUR = Inventory(("GPU-a", "GPU-b", "GPU-c", "GPU-d"), ("0", "1", "2", "3"), cores=16)
ONE = Inventory(("GPU-a",), ("GPU-a",), cores=4)

HOLDER = """
import subprocess, sys, threading, time
from pathlib import Path
from flows.supervision.devices import DEVICES, LEASE, lease
from flows.supervision.inventory import Inventory
import os
names = tuple(sys.argv[3].split(","))
inventory, count = Inventory(names, names, 4), int(sys.argv[4])
with lease(inventory, count, lambda told: None, threading.Event(), sys.argv[2]) as (got, mark):
    if "with a stage" in sys.argv:
        marks = {DEVICES: ",".join(got), LEASE: mark}
        stage = subprocess.Popen(["sleep", "600"], env=os.environ | marks, start_new_session=True)
        Path(sys.argv[1], "stage").write_text(str(stage.pid))
    Path(sys.argv[1], sys.argv[2]).write_text(",".join(got))
    time.sleep(600)
"""

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture(autouse=True)
def locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PCD_LOCKS", str(tmp_path / "locks"))
    return tmp_path / "locks"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """A process that leases devices and then sleeps; the file of its name says what it got."""
    processes: list[subprocess.Popen[bytes]] = []

    def run(
        name: str, *options: str, names: str = "GPU-a", count: int = 1, wait: bool = True
    ) -> subprocess.Popen[bytes]:
        arguments = [str(tmp_path), name, names, str(count), *options]
        processes.append(subprocess.Popen([sys.executable, "-c", HOLDER, *arguments], cwd=ROOT))
        if wait:
            wait_until((tmp_path / name).exists)
        return processes[-1]

    yield run
    for process in processes:
        process.kill()
        process.wait()
    if (tmp_path / "stage").exists():
        subprocess.run(["kill", "-9", (tmp_path / "stage").read_text()], check=False, capture_output=True)


@pytest.fixture
def stage() -> Stage:
    return next(stage for stage in make_plan(load_profile("smoke")).stages if stage.kind == "pretrain")


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def take(inventory: Inventory, count: int = 1, stop: threading.Event | None = None) -> tuple[str, ...]:
    """Lease, and give back."""
    with lease(inventory, count, lambda told: None, stop or threading.Event()) as (names, _):
        return names


def is_free(inventory: Inventory, count: int = 1) -> bool:
    """Whether a lease comes without waiting."""
    stop = threading.Event()
    try:
        with lease(inventory, count, lambda told: stop.set(), stop):
            return True
    except StageStoppedError:
        return False


def test_leases_at_one_time_are_of_different_devices() -> None:
    with lease(FOUR, 2, print, threading.Event()) as (first, _), lease(FOUR, 2, print, threading.Event()) as (other, _):
        assert sorted(first + other) == sorted(FOUR.names)
        assert not is_free(FOUR)
    assert is_free(FOUR, 4)


def test_two_processes_that_need_the_same_device_hold_it_in_turn(start: Start, tmp_path: Path) -> None:
    first = start("first")
    start("second", wait=False)
    wait_until(lambda: [waiting.stage for waiting in waiting_leases()] == ["second"])
    assert not (tmp_path / "second").exists()
    first.terminate()
    wait_until((tmp_path / "second").exists)
    assert waiting_leases() == []


def test_who_waits_is_told_by_whom(start: Start) -> None:
    holder, told, stop = start("pretrain:pcd.seed0"), [], threading.Event()

    def note(by: str) -> None:
        told.append(by)
        stop.set()

    with pytest.raises(StageStoppedError), lease(ONE, 1, note, stop):
        pass
    assert told == [f"pretrain:pcd.seed0 (pid {holder.pid})"]


def test_a_holder_that_was_killed_frees_its_device(start: Start) -> None:
    holder = start("first")
    assert not is_free(ONE)
    holder.kill()
    holder.wait()
    assert is_free(ONE)


@pytest.mark.parametrize("tidied", [False, True], ids=["as it was left", "the lock files were removed"])
def test_a_device_is_not_free_while_the_stage_of_a_killed_holder_lives(
    start: Start, tmp_path: Path, locks: Path, tidied: bool
) -> None:
    holder = start("first", "with a stage")
    holder.kill()
    holder.wait()
    if tidied:
        (locks / "GPU-a.lock").unlink()
    assert not is_free(ONE)
    subprocess.run(["kill", (tmp_path / "stage").read_text()], check=True)
    wait_until(lambda: is_free(ONE))


def test_whoever_needs_several_takes_none_before_it_can_have_all() -> None:
    with lease(FOUR, 3, print, threading.Event()):
        assert not is_free(FOUR, 2)
        assert is_free(FOUR, 1)


def test_two_that_need_all_devices_do_not_block_each_other(start: Start, tmp_path: Path) -> None:
    names = ",".join(FOUR.names)
    with lease(FOUR, 1, print, threading.Event()):
        both = {name: start(name, names=names, count=4, wait=False) for name in ("one", "other")}
        wait_until(lambda: len(waiting_leases()) == 2)
    wait_until(lambda: any((tmp_path / name).exists() for name in both))
    (first,) = (name for name in both if (tmp_path / name).exists())
    both[first].kill()
    wait_until(lambda: all((tmp_path / name).exists() for name in both))


def test_who_needs_many_is_not_overtaken_for_ever_by_those_who_need_one(start: Start) -> None:
    with lease(FOUR, 1, print, threading.Event()):
        start("needs all", names=",".join(FOUR.names), count=4, wait=False)
        wait_until(lambda: len(waiting_leases()) == 1)
        assert not is_free(FOUR, 1)  # three devices are idle, and kept for the one that came first
        assert is_free(Inventory(("GPU-e",), ("4",), 4))


def test_who_was_killed_in_the_queue_is_in_nobodys_way(start: Start) -> None:
    with lease(FOUR, 1, print, threading.Event()):
        waiting = start("needs all", names=",".join(FOUR.names), count=4, wait=False)
        wait_until(lambda: len(waiting_leases()) == 1)
        waiting.kill()
        waiting.wait()
        assert is_free(FOUR, 3)


def test_more_than_there_are_is_the_users_error() -> None:
    with pytest.raises(PCDError, match=r"needs 5 GPUs and may use 4 .* lower runtime\.processes"):
        take(FOUR, 5)


def test_a_stop_ends_the_waiting_and_leaves_the_queue() -> None:
    with lease(ONE, 1, print, threading.Event()):
        assert not is_free(ONE)
        assert waiting_leases() == []


def test_a_stage_sees_its_devices_and_no_others(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.supervision.devices.find_devices", lambda device, slots: FOUR)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    runtime = Runtime(processes=2)
    with (
        lease_devices(stage, runtime, print, threading.Event()),
        lease_devices(stage, runtime, print, threading.Event()) as devices,
    ):
        assert devices.environment["CUDA_VISIBLE_DEVICES"] == "2,3"
        assert devices.environment[DEVICES] == "GPU-c,GPU-d"
        assert (devices.names, devices.of, devices.threads) == (("GPU-c", "GPU-d"), 4, 4)
        assert devices.environment["OMP_NUM_THREADS"] == "4"


@pytest.mark.parametrize(("parallel", "processes", "names", "threads"), [(1, 1, 1, 8), (1, 2, 1, 4), (4, 2, 2, 2)])
def test_without_a_gpu_stages_share_the_cores(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, parallel: int, processes: int, names: int, threads: int
) -> None:
    monkeypatch.setattr("flows.supervision.inventory.list_gpus", list)
    monkeypatch.setattr("flows.supervision.inventory.usable_cores", lambda: 8)
    runtime = Runtime(parallel=parallel, processes=processes)
    with lease_devices(stage, runtime, print, threading.Event()) as devices:
        assert (len(devices.names), devices.threads, devices.of) == (names, threads, parallel)
        assert devices.environment["CUDA_VISIBLE_DEVICES"] == ""
        assert devices.environment[LEASE].startswith(str(lock_folder()))


def test_a_stage_of_one_process_leaves_the_gpus_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.supervision.inventory.list_gpus", lambda: ["GPU-a"])
    data = next(stage for stage in make_plan(load_profile("smoke")).stages if stage.kind == "data")
    with lease_devices(data, Runtime(), print, threading.Event()) as devices:
        assert devices.names == ("cpu0",)


def test_the_holder_is_written_down_for_people(locks: Path) -> None:
    with lease(ONE, 1, print, threading.Event(), "finetune:pcd.fpn_1x.seed0"):
        told = json.loads((locks / "GPU-a.lock").read_text())
        assert told == {"pid": os.getpid(), "stage": "finetune:pcd.fpn_1x.seed0", "device": "GPU-a"}
    assert (locks / "GPU-a.lock").read_text() == ""


def test_the_lock_folder_is_this_users_alone(locks: Path) -> None:
    assert lock_folder().stat().st_mode & 0o777 == 0o700
    locks.chmod(0o777)
    with pytest.raises(PCDError, match="is not this user's alone"):
        lock_folder()


def test_a_link_is_no_lock_folder(locks: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    locks.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PCDError, match="is not this user's alone"):
        lock_folder()


def test_parts_of_a_gpu_have_locks_as_well() -> None:
    part = replace(ONE, names=("MIG-GPU-1/2/3",))
    with lease(part, 1, print, threading.Event()):
        assert not is_free(part)
