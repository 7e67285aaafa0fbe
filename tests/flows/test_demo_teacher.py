import json
from pathlib import Path

import pytest

from pcd.teachers.load import load_entry
from pcd.teachers.registry import TEACHERS
from tests.conftest import Pcd


@pytest.mark.slow
def test_the_command_trains_a_teacher_that_loads_like_the_shipped_one(pcd: Pcd, tmp_path: Path) -> None:
    done = pcd("teachers", "train-demo", "--epochs", "0.1", "--output", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    recipe = json.loads((tmp_path / "demo_mocov3.json").read_text())
    assert recipe["settings"]["epochs"] == 0.1
    assert recipe["size_bytes"] == (tmp_path / "demo_mocov3.pth.tar").stat().st_size < 6_000_000
    assert load_entry(TEACHERS["demo"], tmp_path / "demo_mocov3.pth.tar").training is False


def test_a_missing_output_folder_is_named_before_anything_runs(pcd: Pcd, tmp_path: Path) -> None:
    done = pcd("teachers", "train-demo", "--output", str(tmp_path / "none"))
    assert done.returncode == 2
    assert "does not exist" in done.stderr
