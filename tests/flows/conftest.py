"""A real Prefect server for the tests that need one; it is started once."""

from collections.abc import Iterator

import pytest

from tests.servers import PrefectServer, free_port


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    server = PrefectServer(tmp_path_factory.mktemp("prefect"), free_port())
    server.start()
    yield server
    server.kill()


@pytest.fixture
def prefect_api(prefect_server: PrefectServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """This process talks to the server while the test runs."""
    from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

    monkeypatch.setenv("PREFECT_API_URL", prefect_server.api)
    with temporary_settings({PREFECT_API_URL: prefect_server.api, PREFECT_HOME: prefect_server.folder}):
        yield prefect_server.api
