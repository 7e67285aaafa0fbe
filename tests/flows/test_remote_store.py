"""Several machines, each with a PCD_HOME of its own, and one remote: a real S3 server on loopback, a folder, memory."""

import json
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer

from flows import remote_files
from flows.plan import Stage, make_plan
from flows.profiles import load_profile
from flows.remote_files import RemoteFiles, UnreachableError
from flows.remote_lock import RemoteLock
from flows.remote_store import RemoteStore
from flows.store import StageState, Store, open_store
from pcd.errors import PCDError

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def server() -> Iterator[ThreadedMotoServer]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def s3(server: ThreadedMotoServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a new, empty bucket."""
    _use_endpoint(monkeypatch, server.get_host_and_port()[1])
    import s3fs

    bucket = f"bucket-{uuid.uuid4().hex}"
    s3fs.S3FileSystem(skip_instance_cache=True).mkdir(bucket)
    return f"s3://{bucket}/store of ours"


def _use_endpoint(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")


@pytest.fixture
def folder(tmp_path: Path) -> str:
    (tmp_path / "remote").mkdir()
    return (tmp_path / "remote").as_uri()


@pytest.fixture
def memory() -> str:
    return f"memory://{uuid.uuid4().hex}"


@pytest.fixture(params=["s3", "folder", "memory"])
def url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))


@pytest.fixture
def stages() -> tuple[Stage, ...]:
    return make_plan(load_profile("smoke")).stages


@pytest.fixture
def stage(stages: tuple[Stage, ...]) -> Stage:
    return stages[0]


@pytest.fixture
def machine(tmp_path: Path) -> Callable[[str], Store]:
    """A machine's store; whatever it has to remark fails the test, unless `note` is replaced."""
    count = iter(range(100))

    def make(url: str) -> Store:
        store = Store(tmp_path / f"machine{next(count)}" / "store", RemoteStore(url))
        store.note = pytest.fail
        return store

    return make


Machine = Callable[[str], Store]


def _finish(store: Store, stage: Stage, content: bytes = b"12345") -> Path:
    work = store.work_folder(stage)
    (work / "deep folder").mkdir()
    (work / "deep folder" / "a.bin").write_bytes(content)
    (work / "empty").write_bytes(b"")
    return store.commit(stage, {"seconds": 1.5})


def _remote(store: Store) -> RemoteStore:
    assert store.exchange is not None
    return store.exchange.remote


def _files(store: Store) -> RemoteFiles:
    return _remote(store).files


def _pending(store: Store) -> list[tuple[str, str]]:
    assert store.exchange is not None
    return store.exchange.pending()


def test_what_one_machine_has_computed_another_fetches(machine: Machine, url: str, stage: Stage) -> None:
    one, other = machine(url), machine(url)
    assert other.obtain(stage) is None
    here = _finish(one, stage)
    assert other.state(stage) == StageState("remote")
    assert other.find(stage) is None
    there = other.obtain(stage)
    assert there is not None
    assert there.is_relative_to(other.root)
    for name in ("manifest.json", "deep folder/a.bin", "empty"):
        assert (there / name).read_bytes() == (here / name).read_bytes()
    assert other.state(stage) == StageState("cached")
    assert [path.name for path in there.parent.iterdir()] == [stage.key]


def test_a_reruns_part_finds_nothing_of_the_recorded_run(
    pcd_home: Path, folder: str, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PCD_STORE", folder)
    _finish(open_store(), stage)
    rerun = open_store("again")
    assert rerun.root == pcd_home / "reruns" / "again" / "store"
    assert rerun.obtain(stage) is None
    _finish(rerun, stage, b"54321")
    again = Store(pcd_home / "elsewhere", RemoteStore(folder, "reruns/again")).obtain(stage)
    first = Store(pcd_home / "third", RemoteStore(folder)).obtain(stage)
    assert again is not None
    assert first is not None
    assert (again / "deep folder" / "a.bin").read_bytes() == b"54321"
    assert (first / "deep folder" / "a.bin").read_bytes() == b"12345"


def _damage_remotely(store: Store, stage: Stage) -> None:
    (name,) = [name for name in _files(store).sizes(f"{stage.kind}/{stage.key}") if name.endswith("a.bin")]
    _files(store).write(f"{stage.kind}/{stage.key}/{name}", b"1234x")


def test_a_file_damaged_in_the_remote_is_no_hit_and_the_next_commit_replaces_it(
    machine: Machine, url: str, stage: Stage
) -> None:
    one, other, third = machine(url), machine(url), machine(url)
    _finish(one, stage)
    _damage_remotely(one, stage)
    told: list[str] = []
    other.note = told.append
    assert other.obtain(stage) is None
    assert told == [f"deep folder/a.bin of data is gone or damaged in {_remote(one).name}; it is computed again"]
    _finish(other, stage)
    assert third.obtain(stage) is not None


def test_without_its_manifest_nothing_of_an_upload_is_read(machine: Machine, url: str, stage: Stage) -> None:
    one, other = machine(url), machine(url)
    _finish(one, stage)
    _files(one).remove(f"{stage.kind}/{stage.key}.json")
    assert other.obtain(stage) is None
    assert other.state(stage) == StageState("to run")


def test_two_machines_that_computed_the_same_stage_do_not_mix_their_files(
    machine: Machine, url: str, stage: Stage
) -> None:
    one, other, third = machine(url), machine(url), machine(url)
    _finish(one, stage, b"first")
    _finish(other, stage, b"later")
    fetched = third.obtain(stage)
    assert fetched is not None
    assert (fetched / "deep folder" / "a.bin").read_bytes() == b"first"
    assert (other.folder(stage.kind, stage.key) / "deep folder" / "a.bin").read_bytes() == b"later"


def test_a_manifest_in_the_remote_cannot_point_out_of_its_folder(machine: Machine, folder: str, stage: Stage) -> None:
    one, other = machine(folder), machine(folder)
    manifest = json.loads((_finish(one, stage) / "manifest.json").read_text())
    manifest["files"]["../../../outside"] = {"bytes": 0, "sha256": "0" * 64}
    _files(one).write(f"{stage.kind}/{stage.key}.json", json.dumps(manifest).encode())
    assert other.obtain(stage) is None


# Away.


def test_a_remote_that_is_down_loses_nothing_and_gets_all_of_it_later(
    machine: Machine, stages: tuple[Stage, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    port = server.get_host_and_port()[1]
    _use_endpoint(monkeypatch, port)
    import s3fs

    s3fs.S3FileSystem(skip_instance_cache=True).mkdir("away")
    server.stop()
    store, told = machine("s3://away"), []
    store.note = told.append
    data, teacher, pretrain, *_ = stages
    with store.lock(data):
        assert store.obtain(data) is None
        assert store.find(data) is None
        assert _finish(store, data) == store.find(data)
    _finish(store, teacher)
    assert [line.split(";")[-1] for line in told] == [
        f" another machine may compute data {data.key[:12]} as well",
        f" what it may have of data {data.key[:12]} is computed again",
        " it follows with the next finished stage, or by `pcd store push`",
        " 2 stages follow with the next finished stage, or by `pcd store push`",
    ]
    assert "does not answer (Could not connect" in told[0]
    assert "did not answer a moment ago" in told[1]  # not asked again for each stage
    assert {key for _, key in _pending(store)} == {data.key, teacher.key}

    again = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    again.start()
    later = Store(store.root, RemoteStore("s3://away"))
    later.note = pytest.fail
    _finish(later, pretrain)
    assert _pending(later) == []
    other = machine("s3://away")
    assert None not in [other.obtain(stage) for stage in (data, teacher, pretrain)]
    again.stop()


def test_a_remote_that_never_answers_is_given_up_on(
    machine: Machine, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_files, "_READ_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as deaf:  # connections wait in its queue for ever
        _use_endpoint(monkeypatch, deaf.getsockname()[1])
        store, told = machine("s3://deaf"), []
        store.note = told.append
        assert _finish(store, stage) == store.obtain(stage)
        assert len(told) == 1
        assert told[0].startswith("not uploaded: the remote store s3://deaf does not answer (Read timeout")
        assert _pending(store) == [(stage.kind, stage.key)]


def test_a_plan_remarks_once_that_the_remote_is_away(
    machine: Machine, stages: tuple[Stage, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    _use_endpoint(monkeypatch, port)
    store, told = machine("s3://down"), []
    store.note = told.append
    assert {store.state(stage).name for stage in stages} == {"to run"}
    assert len(told) == 1
    assert told[0].endswith("what only it has is counted as still to run")


# Wrong.


def _refusal(url: str, act: Callable[[RemoteStore], object] = lambda remote: remote.keys()) -> str:
    with pytest.raises(PCDError) as caught:
        act(RemoteStore(url))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_unknown_protocol_is_answered_with_the_nearest() -> None:
    assert _refusal("s3x://bucket").startswith('unknown protocol of PCD_STORE "s3x": did you mean "s3"?')


@pytest.mark.parametrize(
    "act",
    [
        lambda remote: remote.keys(),
        lambda remote: remote.manifest("data", "0"),
        lambda remote: remote.files.create("data/.lock-0", b""),
    ],
)
def test_a_missing_bucket_is_named(s3: str, act: Callable[[RemoteStore], object]) -> None:
    assert _refusal("s3://no-such-bucket/store", act) == (
        "PCD_STORE s3://no-such-bucket/store cannot be used (The specified bucket does not exist); check the URL"
    )


def test_a_folder_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    """It may be a share that is not mounted."""
    told = _refusal((tmp_path / "share").as_uri(), lambda remote: remote.files.write("a", b""))
    assert told.endswith("share does not exist; make the folder, mount it, or check the URL")
    assert not (tmp_path / "share").exists()


def test_missing_credentials_are_named(tmp_path: Path, s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert "refuses us (Unable to locate credentials); check its credentials" in _refusal(s3)


class _Refuses(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b"<Error><Code>SignatureDoesNotMatch</Code><Message>The signature does not match.</Message></Error>"
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_PUT = do_HEAD = do_GET  # noqa: N815

    def log_message(self, *args: object) -> None: ...


def test_wrong_credentials_are_named_before_anything_is_computed(
    machine: Machine, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Refuses) as server:
        threading.Thread(target=server.serve_forever).start()
        _use_endpoint(monkeypatch, server.server_address[1])
        store = machine("s3://bucket")
        with pytest.raises(PCDError, match=r"refuses us \(.*\); check its credentials"), store.lock(stage):
            pytest.fail("was entered")
        told: list[str] = []
        store.note = told.append
        assert _finish(store, stage) == store.find(stage)  # what is computed already is not lost for it
        assert "refuses us" in told[0]
        server.shutdown()


def test_a_urls_password_is_never_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    remote = RemoteStore(f"ftp://someone:hidden%20word@127.0.0.1:{port}/store?token=abcdef")
    with pytest.raises(UnreachableError) as caught:
        remote.keys()
    for told in (str(caught.value), remote.name):
        assert f"ftp://127.0.0.1:{port}/store" in told
        assert not [secret for secret in ("someone", "hidden", "word", "abcdef") if secret in told]


# Locks.

LEASE = 0.6


def _lock(files: RemoteFiles, home: str, lease: float = LEASE) -> RemoteLock:
    return RemoteLock(files, "data/.lock-0", home, lease_seconds=lease, poll_seconds=0.05)


def test_of_many_that_create_one_object_at_once_one_succeeds(machine: Machine, url: str) -> None:
    stores = [machine(url) for _ in range(4)]
    ready, won = threading.Barrier(4), []

    def create(store: Store) -> None:
        _files(store).read("a")  # connected
        ready.wait()
        if _files(store).create("data/.lock-0", b"1"):
            won.append(store)

    threads = [threading.Thread(target=create, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1


def test_a_holder_that_lives_is_waited_for_and_its_release_is_seen(machine: Machine, url: str) -> None:
    held, waits, order = _lock(_files(machine(url)), "one"), threading.Event(), []

    def wait(seconds: float) -> None:
        waits.set()
        time.sleep(seconds)

    def follow(files: RemoteFiles) -> None:
        lock = _lock(files, "other")
        lock.acquire(wait)
        with lock.renewed():
            order.append("other")

    held.acquire(wait)
    with held.renewed():
        thread = threading.Thread(target=follow, args=(_files(machine(url)),))
        thread.start()
        assert waits.wait(10)
        time.sleep(3 * LEASE)
        order.append("one")
    thread.join(10)
    assert order == ["one", "other"]
    assert _files(machine(url)).read("data/.lock-0") is None


def test_a_dead_holders_lock_is_taken_over_after_a_lease_time_whatever_the_clock_says(
    machine: Machine, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = _lock(_files(machine(url)), "one")
    dead.acquire(time.sleep)  # and is never renewed
    jumps = iter(range(10**9, 10**12, 10**8))
    monkeypatch.setattr(time, "time", lambda: float(next(jumps)))
    began = time.monotonic()
    lock = _lock(_files(machine(url)), "other")
    lock.acquire(time.sleep)
    assert time.monotonic() - began > LEASE
    with lock.renewed():
        assert json.loads(_files(machine(url)).read("data/.lock-0") or b"")["home"] == "other"


def test_a_lock_that_a_dead_process_of_this_machine_left_is_taken_over_at_once(
    machine: Machine, url: str, stage: Stage
) -> None:
    store = machine(url)
    assert store.exchange is not None
    left = RemoteLock(_files(store), f"{stage.kind}/.lock-{stage.key}", store.exchange._identity())
    store.work_folder(stage)
    left.acquire(time.sleep)
    with store.lock(stage, lambda: pytest.fail("waits for itself")):
        pass


def test_waiters_that_take_over_at_once_leave_one_holder(machine: Machine, folder: str) -> None:
    dead = _lock(_files(machine(folder)), "dead")
    dead.acquire(time.sleep)
    lock, inside, most, together = threading.Lock(), 0, 0, 4

    def follow(files: RemoteFiles, name: str) -> None:
        nonlocal inside, most
        own = RemoteLock(files, "data/.lock-0", name, lease_seconds=LEASE, poll_seconds=0.5)
        own.acquire(time.sleep)
        with own.renewed():
            with lock:
                inside += 1
                most = max(most, inside)
            time.sleep(0.2)
            with lock:
                inside -= 1

    threads = [threading.Thread(target=follow, args=(_files(machine(folder)), str(i))) for i in range(together)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert most == 1


def test_a_holder_that_lost_its_lock_goes_on_and_leaves_the_new_one_alone(machine: Machine, url: str) -> None:
    cut_off, other = _lock(_files(machine(url)), "one"), _lock(_files(machine(url)), "other", lease=60)
    cut_off.acquire(time.sleep)
    with cut_off.renewed():
        _files(machine(url)).remove("data/.lock-0")
        other.acquire(time.sleep)
        time.sleep(LEASE)  # a renewal is due
    assert json.loads(_files(machine(url)).read("data/.lock-0") or b"")["home"] == "other"


def test_a_wait_outlasts_a_remote_that_is_away_for_a_while(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    port = server.get_host_and_port()[1]
    _use_endpoint(monkeypatch, port)
    import s3fs

    s3fs.S3FileSystem(skip_instance_cache=True).mkdir("patience")
    holder, files = _lock(_files(machine("s3://patience")), "one", lease=60), _files(machine("s3://patience"))
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
from flows.plan import make_plan
from flows.profiles import load_profile
from flows.store import open_store
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
    told = [process.communicate(timeout=60) for process in processes]
    assert sorted(told) == [("computed\n", ""), ("found\n", "")]
