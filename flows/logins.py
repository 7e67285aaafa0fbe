"""Addresses of servers without the user and password that they may hold: for all that is shown, kept or logged."""

import logging
import re
from typing import Final

__all__ = ["LoginlessFormatter", "hide_logins", "without_login"]

_LOGIN: Final = re.compile(r"(?<=://)[^/\s?#]*@")


def without_login(text: str) -> str:
    """An address, or a text that has some in it: http://me:secret@host/api becomes http://host/api."""
    return _LOGIN.sub("", text)


class LoginlessFormatter(logging.Formatter):
    """Another formatter's text: other people's messages and tracebacks name the address that they could not reach."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        return without_login(self._inner.format(record))


def hide_logins() -> None:
    """In all that this process logs, whoever has set up its handlers: a run of a worker's logs by Prefect's."""
    children = [log for log in logging.root.manager.loggerDict.values() if isinstance(log, logging.Logger)]
    for handler in {id(handler): handler for log in (logging.root, *children) for handler in log.handlers}.values():
        if not isinstance(handler.formatter, LoginlessFormatter):
            handler.setFormatter(LoginlessFormatter(handler.formatter or logging.Formatter()))
