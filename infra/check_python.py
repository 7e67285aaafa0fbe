"""Is this Python one that the locked packages are made for? Written so that old ones can read it too."""

import sys


def fault(version, executable):  # type: ignore[no-untyped-def]
    """None, or one line that says what to do."""
    if tuple(version[:2]) == (3, 11):
        return None
    return "error: CPython 3.11 is needed, and %s is %d.%d; install it, or name it: make PYTHON=/path/to/python3.11" % (
        executable,
        version[0],
        version[1],
    )


if __name__ == "__main__":
    sys.exit(fault(sys.version_info, sys.executable))  # type: ignore[no-untyped-call]
