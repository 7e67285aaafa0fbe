from pathlib import Path

import pytest

from flows.json_object import json_object


@pytest.mark.parametrize("content", [None, "", '{"a": 1', "[1]", "3", "\x00"])
def test_what_holds_no_object_is_empty(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "a.json").write_text(content)
    assert json_object(tmp_path / "a.json") == {}


def test_an_object_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": [1, null]}')
    assert json_object(tmp_path / "a.json") == {"a": [1, None]}
