"""How MLflow is reached: one at a time where a database of our own is opened, and what its answers mean."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Final

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import TEMPORARILY_UNAVAILABLE

__all__ = ["alone", "is_doubtful", "is_refusal", "open_client"]

_SQLITE: Final = "sqlite:///"


def open_client(uri: str) -> MlflowClient:
    """Raises MlflowException at once for an SQLite file that cannot be opened: MLflow itself tries for 100 s."""
    if uri.startswith(_SQLITE):
        try:
            with closing(sqlite3.connect(uri.removeprefix(_SQLITE), timeout=20)) as database:
                database.execute("pragma schema_version")
        except sqlite3.Error as error:
            raise MlflowException(str(error), TEMPORARILY_UNAVAILABLE) from None
    return MlflowClient(tracking_uri=uri)


@contextmanager
def alone(uri: str) -> Iterator[None]:
    """For what looks and then makes: tables, an experiment, a run. Two at once would make it twice.

    A server's database has no such lock here; it makes its own tables, before it answers.
    """
    if not uri.startswith(_SQLITE):
        yield
        return
    with FileLock(f"{uri.removeprefix(_SQLITE)}.lock"):
        yield


def is_refusal(error: Exception) -> bool:
    """Whether MLflow was there and said no, so that asking again would not help."""
    return isinstance(error, MlflowException) and error.error_code in (
        *("INVALID_PARAMETER_VALUE", "PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"),
        *("RESOURCE_ALREADY_EXISTS", "RESOURCE_DOES_NOT_EXIST", "INVALID_STATE"),
    )


def is_doubtful(error: Exception) -> bool:
    """Whether it was there and did not take this now: its word for its database's errors, and for a proxy's."""
    return isinstance(error, MlflowException) and error.error_code == "BAD_REQUEST"
