"""What the user can mend about a disk, wherever it strikes, in one line."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from pcd.errors import PCDError

__all__ = ["in_one_line", "plain_os_errors"]

_PLAIN: Final = {
    errno.ENOSPC: "no space left on the disk; free some (`pcd store gc`), or set PCD_HOME to another one",
    errno.EDQUOT: "disk quota exceeded; free some (`pcd store gc`), or set PCD_HOME to another disk",
    errno.EFBIG: "a file would be larger than this process may write; raise the limit (ulimit -f)",
    errno.EACCES: "no permission to write or read; check the owner of PCD_HOME",
    errno.EPERM: "no permission to write or read; check the owner of PCD_HOME",
    errno.EROFS: "the file system is read-only; set PCD_HOME to a writable folder",
}


def in_one_line(error: OSError, place: Path | str) -> str | None:
    """The line, with the file that it was or else `place`; None for a fault of another kind."""
    if error.errno not in _PLAIN:
        return None
    return f"{_PLAIN[error.errno]}: {error.filename2 or error.filename or place}"


@contextmanager
def plain_os_errors(place: Path) -> Iterator[None]:
    """Raises PCDError with that line in the place of the error."""
    try:
        yield
    except OSError as error:
        if (line := in_one_line(error, place)) is None:
            raise
        raise PCDError(line) from None
