"""The house as design says it: who may import whom, and what lies in it."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def _tracked_files() -> list[Path]:
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / line for line in done.stdout.splitlines()]


def test_imports_keep_to_the_arrows() -> None:
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_no_file_is_too_large_for_a_repository() -> None:
    assert [path for path in _tracked_files() if path.exists() and path.stat().st_size > 6_000_000] == []


def test_no_file_holds_two_ideas() -> None:
    modules = [path for path in _tracked_files() if path.suffix == ".py" and path.exists()]
    assert [path for path in modules if len(path.read_text().splitlines()) > 400] == []
