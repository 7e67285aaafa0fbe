"""A file that is no COCO is named in one line."""

import json
from pathlib import Path
from typing import Any

import pytest

from eval.coco_file import parse_coco
from pcd.errors import PCDError


def test_a_whole_file_is_read_as_it_is(tmp_path: Path, own_coco: dict[str, Any]) -> None:
    (tmp_path / "train.json").write_text(json.dumps(own_coco))
    assert parse_coco(tmp_path / "train.json") == own_coco


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PCDError, match=r"gone\.json does not exist"):
        parse_coco(tmp_path / "gone.json")


def test_a_folder_in_place_of_the_file_is_named(own_images: Path) -> None:
    with pytest.raises(PCDError, match="images cannot be read"):
        parse_coco(own_images)


NO_JSON: dict[str, bytes] = {
    "empty": b"", "cut short": b'{"images": [', "binary": b"\x89PNG\xff", "nested": b"[" * 100_000,
    "UTF-16": '{"images": []}'.encode("utf-16"), "a byte-order mark": b'\xef\xbb\xbf{"images": []}',
}  # fmt: skip


@pytest.mark.parametrize("content", NO_JSON.values(), ids=NO_JSON)
def test_a_file_that_is_no_json_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "train.json").write_bytes(content)
    with pytest.raises(PCDError, match=r"\A[^\n]*train\.json is not JSON[^\n]*\Z"):
        parse_coco(tmp_path / "train.json")


@pytest.mark.parametrize("content", [[], "coco", 5, None], ids=["list", "string", "number", "null"])
def test_json_that_is_no_coco_is_named(tmp_path: Path, content: object) -> None:
    (tmp_path / "train.json").write_text(json.dumps(content))
    with pytest.raises(PCDError, match='no list "images"'):
        parse_coco(tmp_path / "train.json")


@pytest.mark.parametrize("name", ["images", "annotations", "categories"])
def test_a_list_that_is_missing_is_named(tmp_path: Path, own_coco: dict[str, Any], name: str) -> None:
    (tmp_path / "train.json").write_text(json.dumps({key: of for key, of in own_coco.items() if key != name}))
    with pytest.raises(PCDError, match=f'no list "{name}"'):
        parse_coco(tmp_path / "train.json")
