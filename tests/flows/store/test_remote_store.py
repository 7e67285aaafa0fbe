import json
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer

from flows.planning.plan import make_plan
from flows.planning.stages import Stage
from flows.profiles import load_profile
from flows.run_results import fetch_stages
from flows.store import remote_files
from flows.store.remote_files import UnreachableError
from flows.store.remote_store import RemoteStore
from flows.store.store import StageState, Store, open_store
from pcd.errors import PCDError
from tests.flows.remote_machines import Machine, files_of, remote_of, use_endpoint

ROOT = Path(__file__).parents[3]


@pytest.fixture
def stages() -> tuple[Stage, ...]:
    return make_plan(load_profile("smoke")).stages


@pytest.fixture
def stage(stages: tuple[Stage, ...]) -> Stage:
    return stages[0]


def _finish(store: Store, stage: Stage, content: bytes = b"12345") -> Path:
    work = store.work_folder(stage)
    (work / "deep folder").mkdir()
    (work / "deep folder" / "a.bin").write_bytes(content)
    (work / "empty").write_bytes(b"")
    return store.commit(stage, {"seconds": 1.5})


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


def test_a_stage_is_fetched_by_its_key_from_the_first_store_that_has_it(
    machine: Machine, memory: str, stages: tuple[Stage, ...]
) -> None:
    one, other, another = machine(memory), machine(memory), machine(f"{memory}/part")
    for stage in stages[:2]:
        _finish(one, stage)
    recorded = {stage.id: stage.key for stage in stages}
    fetch_stages(recorded, [another, other])
    assert [other.find(stage) is not None for stage in stages[:3]] == [True, True, False]
    assert not list(another.root.glob("*/[!.]*"))


def _damage_remotely(store: Store, stage: Stage) -> None:
    (name,) = [name for name in files_of(store).sizes(f"{stage.kind}/{stage.key}") if name.endswith("a.bin")]
    files_of(store).write(f"{stage.kind}/{stage.key}/{name}", b"1234x")


def test_a_file_damaged_in_the_remote_is_no_hit_and_the_next_commit_replaces_it(
    machine: Machine, url: str, stage: Stage
) -> None:
    one, other, third = machine(url), machine(url), machine(url)
    _finish(one, stage)
    _damage_remotely(one, stage)
    told: list[str] = []
    other.note = told.append
    assert other.obtain(stage) is None
    assert told == [f"deep folder/a.bin of data is gone or damaged in {remote_of(one).name}; it is computed again"]
    _finish(other, stage)
    assert third.obtain(stage) is not None


def test_without_its_manifest_nothing_of_an_upload_is_read(machine: Machine, url: str, stage: Stage) -> None:
    one, other = machine(url), machine(url)
    _finish(one, stage)
    files_of(one).remove(f"{stage.kind}/{stage.key}.json")
    assert other.obtain(stage) is None
    assert other.state(stage) == StageState("to run")


def test_two_machines_that_computed_the_same_stage_do_not_mix_theirfiles_of(
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
    files_of(one).write(f"{stage.kind}/{stage.key}.json", json.dumps(manifest).encode())
    assert other.obtain(stage) is None


# Away.


def test_a_remote_that_is_down_loses_nothing_and_gets_all_of_it_later(
    machine: Machine, stages: tuple[Stage, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    port = server.get_host_and_port()[1]
    use_endpoint(monkeypatch, port)
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
        use_endpoint(monkeypatch, deaf.getsockname()[1])
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
    use_endpoint(monkeypatch, port)
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
        use_endpoint(monkeypatch, server.server_address[1])
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
