"""A real Prefect server and a real S3 server for the tests that need one, each started once; remotes and machines."""

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flows.store.remote_store import RemoteStore
from flows.store.store import Store
from tests.flows.remote_machines import use_endpoint
from tests.servers import PrefectServer, free_port


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    server = PrefectServer(tmp_path_factory.mktemp("prefect"), free_port())
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        # Prefect's worker for events drains itself at the end of every process that this one forks as well, and fails
        # there (an assertion, unseen): the loading workers of every later test would end with code 1.
        patch.setattr("prefect._internal.concurrency.services._QueueServiceBase._at_exit", lambda service: None)
        yield server
    server.kill()


@pytest.fixture
def prefect_api(prefect_server: PrefectServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """This process talks to the server while the test runs."""
    from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

    monkeypatch.setenv("PREFECT_API_URL", prefect_server.api)
    with temporary_settings({PREFECT_API_URL: prefect_server.api, PREFECT_HOME: prefect_server.folder}):
        yield prefect_server.api


# Remotes of the store, and machines that share one.


@pytest.fixture(scope="session")
def s3_server() -> Iterator[int]:
    """The port of a real S3 server on loopback."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield server.get_host_and_port()[1]
    server.stop()


@pytest.fixture
def s3(s3_server: int, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a new, empty bucket."""
    use_endpoint(monkeypatch, s3_server)
    import s3fs

    bucket = f"bucket-{uuid.uuid4().hex}"
    s3fs.S3FileSystem(skip_instance_cache=True).mkdir(bucket)
    return f"s3://{bucket}/store of ours"


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
def machine(tmp_path: Path) -> Callable[[str], Store]:
    """A machine's store; whatever it has to remark fails the test, unless `note` is replaced."""
    count = iter(range(100))

    def make(url: str) -> Store:
        store = Store(tmp_path / f"machine{next(count)}" / "store", RemoteStore(url))
        store.note = pytest.fail
        return store

    return make
