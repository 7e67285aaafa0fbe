"""What the pages say of the code is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
METHOD = (ROOT / "docs" / "method.md").read_text()


def _named_tests() -> list[tuple[str, str | None]]:
    """File and function of each test that the page names; `::test_x` alone belongs to the file named before it."""
    named: list[tuple[str, str | None]] = []
    for file, function in re.findall(r"`([\w/]*\.py)?(?:::(\w+))?`", METHOD):
        if file.startswith(("test_", "teachers/test_")) or (not file and function):
            named.append((file or named[-1][0], function or None))
    return named


def test_the_method_page_names_a_test_for_each_mistake() -> None:
    rows = [line for line in METHOD.splitlines() if re.match(r"\| \d+ \|", line)]
    assert [int(line.split("|")[1]) for line in rows] == list(range(1, 16))
    assert len(_named_tests()) >= 15


@pytest.mark.parametrize(("file", "function"), _named_tests())
def test_named_test_exists(file: str, function: str | None) -> None:
    source = (ROOT / "tests" / "pcd" / file).read_text()
    assert function is None or f"def {function}(" in source
