import logging
import sys

import pytest

from flows.logins import LoginlessFormatter, hide_logins, without_login


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
    told = LoginlessFormatter(logging.Formatter()).format(record)
    assert "http://host" in told
    assert "hidden" not in told


def test_a_handler_that_somebody_else_set_up_keeps_its_form_and_shows_no_login(
    capsys: pytest.CaptureFixture[str],
) -> None:
    handler, logger = logging.StreamHandler(sys.stderr), logging.getLogger("somebody.else")
    handler.setFormatter(logging.Formatter("form %(message)s"))
    logger.addHandler(handler)
    try:
        hide_logins()
        hide_logins()
        logger.warning("no answer from %s", "http://me:hidden@host/api")
    finally:
        logger.removeHandler(handler)
    assert capsys.readouterr().err == "form no answer from http://host/api\n"
