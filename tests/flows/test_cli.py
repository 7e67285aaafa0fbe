import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from flows.cli import main
from tests.conftest import ROOT, Pcd


def test_help_lists_every_command() -> None:
    told = CliRunner().invoke(main, ["--help"]).output
    for command in main.commands:
        assert f"\n  {command} " in told


def test_help_answers_without_importing_what_is_slow() -> None:
    code = (
        "import sys; from flows.cli import main; main(['--help'], standalone_mode=False); "
        "print([m for m in ('torch', 'mlflow', 'prefect', 'pandas', 'pydantic') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["rum", "demo"], 'unknown command "rum": did you mean "run"?'),
        (["run", "dmeo"], 'error: unknown profile "dmeo": did you mean "demo"?'),
        (["plan", "demo", "--set", "pretrain.epocs=1"], "did you mean pretrain.epochs?"),
        (["run", "paper"], "instances_train2017.json does not exist; set data.* to where your data lies"),
        (["report"], "error: no finished benchmark here; run one: pcd run demo"),
        (["export", "--to", "out"], "error: no finished benchmark here; run one: pcd run demo"),
        (["ui"], "does not exist; run a benchmark first"),
    ],
)
def test_bad_input_gets_one_line_and_exit_code_2(arguments: list[str], told: str, pcd: Pcd) -> None:
    done = pcd(*arguments)
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_a_home_that_cannot_be_written_is_named(tmp_path: Path, pcd: Pcd, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("PCD_HOME", str(tmp_path / "file" / "home"))
    done = pcd("run", "smoke")
    assert done.returncode == 2
    assert "set PCD_HOME to a writable folder" in done.stderr


@pytest.mark.slow
def test_the_doctor_runs_detectron2s_operators(pcd: Pcd) -> None:
    done = pcd("doctor")
    assert done.returncode == 0, done.stdout
    assert "ok    Detectron2's RoIAlign and NMS run and give the right answers" in done.stdout
