"""A store that is killed, full, or not to be written to."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("scenario", ["commit", "replace", "move aside", "upload", "fetch"])
def test_killed_between_any_two_system_calls_a_stage_is_absent_or_whole_and_a_second_try_succeeds(
    tmp_path: Path, scenario: str
) -> None:
    command = [sys.executable, "-W", "error", "-m", "tests.flows.killed_store", str(tmp_path), scenario]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 10
