import logging

import pytest

from flows.logins import LoginlessFormatter, without_login


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("http://me:hidden@host:1/api", "http://host:1/api"),
        ("https://me@host", "https://host"),
        ("http://me:hid@den@host/a@b?c=d@e", "http://host/a@b?c=d@e"),
        ("postgresql://me:hidden@host/db", "postgresql://host/db"),
        ("http://host/api", "http://host/api"),
        ("sqlite:////home/a@b/mlflow.db", "sqlite:////home/a@b/mlflow.db"),
        ("cannot reach http://me:hidden@a or http://me:hidden@b/", "cannot reach http://a or http://b/"),
    ],
)
def test_user_and_password_are_left_out(address: str, told: str) -> None:
    assert without_login(address) == told


def test_a_log_holds_them_neither_in_a_message_nor_in_a_traceback() -> None:
    try:
        raise ValueError("no answer from http://me:hidden@host")
    except ValueError as error:
        record = logging.LogRecord("a", 30, "", 0, "at %s", ("http://me:hidden@x",), (ValueError, error, None))
    told = LoginlessFormatter().format(record)
    assert "http://host" in told
    assert "hidden" not in told
