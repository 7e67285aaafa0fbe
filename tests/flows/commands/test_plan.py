"""`pcd plan` as people see it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, Pcd


def test_the_tree_shows_cells_with_their_stages_and_what_all_share(pcd: Pcd) -> None:
    lines = pcd("plan", "smoke", "--set", "seeds=[0, 1]", "--set", "arms=[pcd]").stdout.splitlines()
    names = [line.split()[1] for line in lines if line[0] == "├" or line[0] == "└"]
    assert names == ["data", "teacher", "pcd.smoke_fpn.seed0", "pcd.smoke_fpn.seed1", "aggregate"]
    stages = [line.split("── ")[1].split()[0] for line in lines if line[0] == "│"]
    assert stages == [
        *("pretrain:pcd.seed0", "finetune:pcd.smoke_fpn.seed0"),
        *("pretrain:pcd.seed1", "finetune:pcd.smoke_fpn.seed1"),
    ]
    assert lines[0] == "benchmark smoke: 2 cells, 7 stages: 7 to run"
    assert sum("to run" in line and "[default]" in line for line in lines[1:]) == 7


def test_a_stage_that_protocols_share_stands_below_the_first_of_its_cells(pcd: Pcd) -> None:
    told = pcd("plan", "smoke", "--set", "protocols.second={base: fpn_1x}", "--set", "arms=[pcd]").stdout
    assert told.count("pretrain:pcd.seed0") == 2
    assert told.count("pretrain:pcd.seed0 (above)") == 1


def test_a_protocol_on_another_number_of_processes_than_it_means_is_told(pcd: Pcd) -> None:
    told = "protocols.fpn_1x: 16 images of a step over one process are 16 on each, where fpn_1x means 2 (16 over 8)"
    assert told in pcd("plan", "smoke", "--set", "protocols.fpn_1x={}").stdout
    assert "images of a step" not in pcd("plan", "smoke").stdout


def test_missing_inputs_are_named_with_what_to_do_and_nothing_fails(pcd: Pcd) -> None:
    done = pcd("plan", "paper")
    assert done.returncode == 0
    assert done.stdout.count("── missing: ") == 5
    assert "instances_train2017.json does not exist; set data.* to where your data lies" in done.stdout
    assert "5 inputs are missing; a run would refuse" in done.stdout
    assert "images assumed where data are missing: 1,281,167" in done.stdout


def test_commands_are_shown_where_they_are_asked_for(pcd: Pcd) -> None:
    assert "python" not in pcd("plan", "smoke").stdout
    assert pcd("plan", "smoke", "--commands").stdout.count(" -m ") == 6


def test_the_plan_speaks_json(pcd: Pcd) -> None:
    plan = json.loads(pcd("plan", "smoke", "--json", "--only", "random.*").stdout)
    assert plan["settings"]["name"] == "smoke"
    assert [stage["state"] for stage in plan["stages"]] == ["to run"] * 2
    assert all("-m" in stage["command"] for stage in plan["stages"])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--only", "pdc.*"), 'error: --only: no cell matches "pdc.*"'),
        (("--from", "finetun"), 'error: --from: "finetun" is no stage of this plan'),
        (("--set", 'exclude=["x"]'), "did you mean"),
    ],
)
def test_what_matches_nothing_gets_one_line(pcd: Pcd, arguments: tuple[str, str], told: str) -> None:
    done = pcd("plan", "smoke", *arguments)
    assert done.returncode == 2
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_plan_of_a_thousand_cells_lists_them_all_without_torch_or_a_server(pcd_home: Path) -> None:
    code = (
        "import sys; from flows.cli import main; "
        "main(['plan', 'demo', '--set', f'seeds={list(range(500))}'], standalone_mode=False); "
        "foreign = ('torch', 'timm', 'mlflow', 'prefect', 'detectron2', 'pandas', 'filelock'); "
        "print([m for m in foreign if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert lines[0] == "benchmark demo: 1000 cells, 1503 stages: 1503 to run"
    assert sum("finetune:" in line for line in lines) == 1000
    assert lines[-1] == "[]"


def test_looking_at_a_plan_writes_nothing(pcd: Pcd, pcd_home: Path) -> None:
    pcd("plan", "smoke")
    assert not pcd_home.exists()
