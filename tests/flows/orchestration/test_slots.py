import contextvars
import threading
from contextlib import suppress

import pytest
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from flows.orchestration.slots import free_slots, limit_name, prefect_slots

pytestmark = pytest.mark.slow  # a real server is started


@pytest.fixture(autouse=True)
def _no_limit_yet(request: pytest.FixtureRequest) -> None:
    if "prefect_api" in request.fixturenames:
        request.getfixturevalue("prefect_api")
        with get_client(sync_client=True) as client, suppress(ObjectNotFound):
            client.delete_global_concurrency_limit_by_name(limit_name("cpu"))


def _active() -> tuple[int, int]:
    with get_client(sync_client=True) as client:
        limit = client.read_global_concurrency_limit_by_name(limit_name("cpu"))
    return limit.active_slots, limit.limit


def test_the_limit_is_made_and_shows_what_is_taken(prefect_api: str) -> None:
    with prefect_slots("cpu", 2, 4, threading.Event()):
        assert _active() == (2, 4)
    assert _active() == (0, 4)


def test_who_needs_taken_slots_waits_until_they_come_free(prefect_api: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.orchestration.slots._ASK_SECONDS", 0.5)
    entered, leave = threading.Event(), threading.Event()

    def second() -> None:
        with prefect_slots("cpu", 1, 1, threading.Event()):
            entered.set()
            leave.wait()

    with prefect_slots("cpu", 1, 1, threading.Event()):
        thread = threading.Thread(target=contextvars.copy_context().run, args=(second,))
        thread.start()
        assert not entered.wait(2)
    assert entered.wait(20)
    leave.set()
    thread.join()


def test_a_stopped_run_does_not_wait_for_slots(prefect_api: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.orchestration.slots._ASK_SECONDS", 0.5)
    stop = threading.Event()
    stop.set()
    with prefect_slots("cpu", 1, 1, threading.Event()), prefect_slots("cpu", 1, 1, stop):
        assert _active() == (1, 1)


def test_a_run_that_sees_fewer_devices_does_not_lower_the_limit(prefect_api: str) -> None:
    with prefect_slots("cpu", 2, 4, threading.Event()), prefect_slots("cpu", 1, 1, threading.Event()):
        assert _active() == (3, 4)


def test_slots_of_dead_runs_are_given_back(prefect_api: str) -> None:
    with get_client(sync_client=True) as client:
        client.upsert_global_concurrency_limit_by_name(limit_name("cpu"), 2)
        client.increment_concurrency_slots([limit_name("cpu")], 2, "concurrency")
    assert _active() == (2, 2)
    free_slots()
    assert _active() == (0, 2)


@pytest.mark.parametrize("when", ["from the start", "behind the first question"])
def test_without_a_server_the_device_locks_alone_guard(when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if when != "from the start":
        monkeypatch.setattr("flows.orchestration.slots._ensure_limit", lambda _name, _of: None)
    with (
        temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api", PREFECT_CLIENT_MAX_RETRIES: 0}),
        prefect_slots("cpu", 1, 1, threading.Event()),
    ):
        pass
