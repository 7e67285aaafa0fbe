import subprocess
import sys
from pathlib import Path

from infra.check_python import fault

ROOT = Path(__file__).parents[2]


def test_this_python_is_the_right_one() -> None:
    done = subprocess.run([sys.executable, str(ROOT / "infra" / "check_python.py")], check=False)
    assert done.returncode == 0


def test_another_python_is_refused_in_one_line_that_says_what_to_do() -> None:
    told = fault((3, 9, 2), "/usr/bin/python3")
    assert told == (
        "error: CPython 3.11 is needed, and /usr/bin/python3 is 3.9; "
        "install it, or name it: make PYTHON=/path/to/python3.11"
    )
