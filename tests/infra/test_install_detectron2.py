import subprocess
import sys
import tarfile
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def _install(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "infra" / "install_detectron2.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment or None)


@pytest.fixture
def foreign_archive(tmp_path: Path) -> Path:
    """An archive of the right name whose setup.py would leave a trace if it were run."""
    package = tmp_path / "pb1-detectron2-0.6"
    package.mkdir()
    (package / "setup.py").write_text(f"open({str(tmp_path / 'was_run')!r}, 'w').close()\n")
    with tarfile.open(tmp_path / "pb1-detectron2-0.6.tar.gz", "w:gz") as tar:
        tar.add(package, arcname=package.name)
    return tmp_path


def test_an_archive_with_another_hash_is_refused_in_one_line_and_not_run(foreign_archive: Path) -> None:
    done = _install("--force", PIP_NO_INDEX="1", PIP_FIND_LINKS=str(foreign_archive), PATH="/usr/bin:/bin")
    assert done.returncode == 1
    assert done.stderr.startswith("error: the archive of pb1-detectron2==0.6 has another SHA-256")
    assert len(done.stderr.splitlines()) == 1
    assert not (foreign_archive / "was_run").exists()


def test_an_archive_that_cannot_be_had_is_told_with_pips_reason(tmp_path: Path) -> None:
    done = _install("--force", PIP_NO_INDEX="1", PIP_FIND_LINKS=str(tmp_path), PATH="/usr/bin:/bin")
    assert done.returncode == 1
    assert "`pip download` failed" in done.stderr


def test_the_installed_version_is_found_and_kept() -> None:
    done = _install()
    assert (done.returncode, done.stdout) == (0, f"detectron2 {metadata.version('detectron2')} is already installed\n")


def test_the_wheel_is_known_to_pip_and_brings_the_model_zoo() -> None:
    files = [str(path) for path in metadata.files("detectron2") or []]
    assert sum("model_zoo/configs" in path and path.endswith(".yaml") for path in files) > 50
    assert "detectron2/_C.py" in files


def test_a_compiled_operator_that_is_left_out_says_so() -> None:
    code = "import eval.detectron; from detectron2 import _C; _C.deform_conv_forward()"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "detectron2._C.deform_conv_forward is a compiled operator" in done.stderr
