import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pcd.errors import PCDError
from pcd.stage import Spec
from pcd.teachers import TEACHERS
from pcd.teachers.registry import DEMO_CHECKPOINT
from pcd.teachers.stage import fetch_and_check

MakeSpec = Callable[..., Spec]


def test_fetched_file_has_the_publishers_name_and_bytes(make_spec: MakeSpec) -> None:
    spec = make_spec({"teacher": "demo"})
    fetch_and_check(spec)
    assert (spec.out / "demo_mocov3.pth.tar").read_bytes() == DEMO_CHECKPOINT.read_bytes()


@pytest.mark.parametrize(
    ("key", "expected"),
    {
        "file": "demo_mocov3.pth.tar",
        "sha256": TEACHERS["demo"].sha256,
        "hash_was_published": True,
        "licence": "Apache-2.0",
        "noncommercial": False,
        "map_channels": 128,
    }.items(),
)
def test_result_says(make_spec: MakeSpec, key: str, expected: object) -> None:
    assert fetch_and_check(make_spec({"teacher": "demo"}))[key] == expected


def test_unknown_teacher_is_the_users_error(make_spec: MakeSpec) -> None:
    with pytest.raises(PCDError, match='did you mean "demo"'):
        fetch_and_check(make_spec({"teacher": "demmo"}))


def test_nothing_is_left_of_a_file_that_cannot_be_loaded(
    make_spec: MakeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save({"state_dict": {}}, tmp_path / "bad.pth.tar")
    bad = replace(TEACHERS["demo"], url=(tmp_path / "bad.pth.tar").as_uri(), sha256=None, size_bytes=None)
    monkeypatch.setitem(TEACHERS, "demo", bad)
    spec = make_spec({"teacher": "demo"})
    with pytest.raises(PCDError, match="no tensor under"):
        fetch_and_check(spec)
    assert not (spec.out / "bad.pth.tar").exists()


@pytest.mark.slow
def test_stage_process_leaves_the_file_and_its_result(
    write_spec: Callable[..., Path], stage_environment: dict[str, str], tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "pcd.teachers.stage", str(write_spec({"teacher": "demo"}))]
    subprocess.run(command, env=stage_environment, cwd=tmp_path, check=True, timeout=120)
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert (tmp_path / "out" / result["file"]).read_bytes() == DEMO_CHECKPOINT.read_bytes()


@pytest.mark.slow
def test_a_full_disk_is_named_in_one_line_and_nothing_is_kept(
    write_spec: Callable[..., Path], stage_environment: dict[str, str], tmp_path: Path
) -> None:
    spec, out = write_spec({"teacher": "demo"}), tmp_path / "out"
    out.mkdir(exist_ok=True)
    (out / ".demo_mocov3.pth.tar.part").symlink_to("/dev/full")  # every write to it fails as on a full disk
    command = [sys.executable, "-m", "pcd.teachers.stage", str(spec)]
    done = subprocess.run(command, env=stage_environment, cwd=tmp_path, check=False, timeout=120)
    assert done.returncode == 2
    assert (out / "error.txt").read_text().startswith("no space left on the disk; free some, or set PCD_HOME")
    assert not (out / "demo_mocov3.pth.tar").exists()
