"""What the tests of the remote store and of its locks share."""

from collections.abc import Callable

import pytest

from flows.store.remote_files import RemoteFiles
from flows.store.remote_store import RemoteStore
from flows.store.store import Store

__all__ = ["Machine", "files_of", "remote_of", "use_endpoint"]

Machine = Callable[[str], Store]
"""From a remote's URL to the store of one more machine."""


def use_endpoint(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")


def remote_of(store: Store) -> RemoteStore:
    assert store.exchange is not None
    return store.exchange.remote


def files_of(store: Store) -> RemoteFiles:
    return remote_of(store).files
