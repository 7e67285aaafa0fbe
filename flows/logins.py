"""Addresses of servers without the user and password that they may hold: for all that is shown, kept or logged."""

import logging
import re
from typing import Final

__all__ = ["LoginlessFormatter", "without_login"]

_LOGIN: Final = re.compile(r"(?<=://)[^/\s?#]*@")


def without_login(text: str) -> str:
    """An address, or a text that has some in it: http://me:secret@host/api becomes http://host/api."""
    return _LOGIN.sub("", text)


class LoginlessFormatter(logging.Formatter):
    """Other people's messages and tracebacks name the address that they could not reach."""

    def format(self, record: logging.LogRecord) -> str:
        return without_login(super().format(record))
