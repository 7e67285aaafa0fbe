import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer

from flows.planning.plan import make_plan
from flows.profiles import load_profile
from flows.store.remote_files import RemoteFiles
from flows.store.remote_lock import RemoteLock
from flows.store.store import Store
from tests.flows.remote_machines import Machine, files_of, use_endpoint
from tests.patience import PATIENCE

ROOT = Path(__file__).parents[3]


LEASE = 0.6
LONG_LEASE = 3.0
"""For tests in which a holder lives: a busy machine may take a second to renew its lock."""


def _lock(files: RemoteFiles, home: str, lease: float = LEASE) -> RemoteLock:
    return RemoteLock(files, "data/.lock-0", home, lease_seconds=lease, poll_seconds=0.05)


def test_of_many_that_create_one_object_at_once_one_succeeds(machine: Machine, url: str) -> None:
    stores = [machine(url) for _ in range(4)]
    ready, won = threading.Barrier(4), []

    def create(store: Store) -> None:
        files_of(store).read("a")  # connected
        ready.wait()
        if files_of(store).create("data/.lock-0", b"1"):
            won.append(store)

    threads = [threading.Thread(target=create, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1


def test_a_holder_that_lives_is_waited_for_and_its_release_is_seen(machine: Machine, url: str) -> None:
    held, waits, order = _lock(files_of(machine(url)), "one", LONG_LEASE), threading.Event(), []

    def wait(seconds: float) -> None:
        waits.set()
        time.sleep(seconds)

    def follow(files: RemoteFiles) -> None:
        lock = _lock(files, "other", LONG_LEASE)
        lock.acquire(wait)
        with lock.renewed():
            order.append("other")

    held.acquire(wait)
    with held.renewed():
        thread = threading.Thread(target=follow, args=(files_of(machine(url)),))
        thread.start()
        assert waits.wait(PATIENCE)
        time.sleep(2 * LONG_LEASE)
        order.append("one")
    thread.join(PATIENCE)
    assert order == ["one", "other"]
    assert files_of(machine(url)).read("data/.lock-0") is None


def test_a_dead_holders_lock_is_taken_over_after_a_lease_time_whatever_the_clock_says(
    machine: Machine, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = _lock(files_of(machine(url)), "one")
    dead.acquire(time.sleep)  # and is never renewed
    jumps = iter(range(10**9, 10**12, 10**8))
    monkeypatch.setattr(time, "time", lambda: float(next(jumps)))
    began = time.monotonic()
    lock = _lock(files_of(machine(url)), "other")
    lock.acquire(time.sleep)
    assert time.monotonic() - began > LEASE
    with lock.renewed():
        assert json.loads(files_of(machine(url)).read("data/.lock-0") or b"")["home"] == "other"


def test_a_lock_that_a_dead_process_of_this_machine_left_is_taken_over_at_once(machine: Machine, url: str) -> None:
    stage, store = make_plan(load_profile("smoke")).stages[0], machine(url)
    assert store.exchange is not None
    left = RemoteLock(files_of(store), f"{stage.kind}/.lock-{stage.key}", store.exchange._identity())
    store.work_folder(stage)
    left.acquire(time.sleep)
    with store.lock(stage, lambda: pytest.fail("waits for itself")):
        pass


def test_waiters_that_take_over_at_once_leave_one_holder(machine: Machine, folder: str) -> None:
    dead = _lock(files_of(machine(folder)), "dead", LONG_LEASE)
    dead.acquire(time.sleep)
    lock, inside, most, together = threading.Lock(), 0, 0, 4

    def follow(files: RemoteFiles, name: str) -> None:
        nonlocal inside, most
        own = RemoteLock(files, "data/.lock-0", name, lease_seconds=LONG_LEASE, poll_seconds=0.5)
        own.acquire(time.sleep)
        with own.renewed():
            with lock:
                inside += 1
                most = max(most, inside)
            time.sleep(0.2)
            with lock:
                inside -= 1

    threads = [threading.Thread(target=follow, args=(files_of(machine(folder)), str(i))) for i in range(together)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert most == 1


def test_a_holder_that_lost_its_lock_goes_on_and_leaves_the_new_one_alone(machine: Machine, url: str) -> None:
    cut_off, files = _lock(files_of(machine(url)), "one"), files_of(machine(url))
    taken_over = json.dumps({"holder": "another", "home": "other", "beat": 0}).encode()
    cut_off.acquire(time.sleep)
    with cut_off.renewed():
        while files.read("data/.lock-0") != taken_over:  # a renewal that was on its way may still arrive
            files.write("data/.lock-0", taken_over)
            time.sleep(LEASE)  # another renewal is due
    assert files.read("data/.lock-0") == taken_over


def test_a_wait_outlasts_a_remote_that_is_away_for_a_while(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    port = server.get_host_and_port()[1]
    use_endpoint(monkeypatch, port)
    import s3fs

    s3fs.S3FileSystem(skip_instance_cache=True).mkdir("patience")
    holder, files = _lock(files_of(machine("s3://patience")), "one", lease=60), files_of(machine("s3://patience"))
    holder.acquire(time.sleep)
    files.quiet_seconds = 0.1
    again = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)

    def come_back() -> None:
        again.start()
        holder._release()

    happenings = iter([server.stop, come_back])

    def wait(seconds: float) -> None:
        next(happenings, lambda: None)()
        time.sleep(0.2)

    _lock(files, "other", lease=60).acquire(wait)
    assert json.loads(files.read("data/.lock-0") or b"")["home"] == "other"
    again.stop()


COMPUTE_ONCE = """
import sys, time
from pathlib import Path
from flows.planning.plan import make_plan
from flows.profiles import load_profile
from flows.store.store import open_store
store, stage = open_store(), make_plan(load_profile('smoke')).stages[0]
with store.lock(stage):
    if store.obtain(stage) is None:
        time.sleep(1)
        (store.work_folder(stage) / 'a.bin').write_bytes(b'1')
        store.commit(stage, {})
        print('computed')
    else:
        print('found')
"""


def test_processes_on_two_machines_compute_a_stage_once(
    tmp_path: Path, s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PCD_STORE", s3)
    processes = []
    for name in ("one", "other"):
        monkeypatch.setenv("PCD_HOME", str(tmp_path / name))
        command = [sys.executable, "-W", "error", "-c", COMPUTE_ONCE]
        processes.append(subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    told = [process.communicate(timeout=PATIENCE) for process in processes]
    assert sorted(told) == [("computed\n", ""), ("found\n", "")]
