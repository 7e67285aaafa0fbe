"""`pcd rerun` for real: a tiny benchmark, its rerun, and the verdict after the original was changed on the disk."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.patience import PATIENCE

pytestmark = pytest.mark.slow

_TINY = ("smoke", "--set", "arms=[random]", "--set", "protocols.smoke_fpn.iterations=3")
_AGAIN = ("rerun", "smoke", "--share", "data", "--part", "again", "--json")


@dataclass(frozen=True)
class Home:
    path: Path

    def pcd(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        foreign = ("MLFLOW_TRACKING_URI", "PREFECT_API_URL", "PREFECT_HOME")
        own = {"PCD_HOME": str(self.path), "PCD_LOCKS": str(self.path / "locks")}
        environment = {k: v for k, v in os.environ.items() if k not in foreign} | own
        command = [sys.executable, "-m", "flows", *arguments]
        return subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False, env=environment
        )

    def change_original(self, file: str, change: Callable[[dict[str, Any]], None]) -> None:
        """Change the fine-tuning's file, and its hash in the manifest with it."""
        (folder,) = (self.path / "store" / "finetune").glob("[!.]*")
        content = json.loads((folder / file).read_text())
        change(content)
        (folder / file).write_text(json.dumps(content))
        if file != "manifest.json":
            whole = (folder / file).read_bytes()
            entry = {"bytes": len(whole), "sha256": hashlib.sha256(whole).hexdigest()}
            self.change_original("manifest.json", lambda manifest: manifest["files"].update({file: entry}))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = Home(tmp_path_factory.mktemp("rerun") / "home")
    done = home.pcd("run", *_TINY)
    assert done.returncode == 0, done.stdout + done.stderr
    return home


@pytest.fixture(scope="module")
def again(home: Home) -> dict[str, Any]:
    done = home.pcd(*_AGAIN)
    assert done.returncode == 0, done.stdout + done.stderr
    verdict: dict[str, Any] = json.loads(done.stdout)
    return verdict


def test_a_rerun_on_the_same_machine_is_identical(again: dict[str, Any]) -> None:
    (cell,) = again["cells"]
    assert (again["outcome"], cell["outcome"], cell["reasons"]) == ("identical", "identical", [])


@pytest.mark.usefixtures("again")
def test_it_computes_in_a_part_of_the_store_and_shares_what_it_was_told(home: Home) -> None:
    part = home.path / "reruns" / "again" / "store"
    assert [len(list((home.path / "store" / kind).glob("[!.]*"))) for kind in ("data", "finetune")] == [1, 1]
    assert [len(list((part / kind).glob("[!.]*"))) for kind in ("data", "finetune")] == [0, 1]


def test_table_figure_and_the_address_of_its_page_lie_beside_it(home: Home, again: dict[str, Any]) -> None:
    folder = home.path / "reruns" / "again" / "verdict"
    assert again["folder"] == str(folder)
    tables = {f"verdict.{suffix}" for suffix in ("json", "csv", "md", "html", "png")}
    assert {path.name for path in folder.iterdir()} == {*tables, "mlflow_page.txt"}
    assert (folder / "mlflow_page.txt").read_text() == again["mlflow_page"]


def test_what_was_shared_is_told(again: dict[str, Any]) -> None:
    assert "Taken from the original, not computed again: data." in again["notes"]
    assert not [note for note in again["notes"] if note.startswith("To be taken")]


@pytest.mark.usefixtures("again")
def test_versions_that_differ_end_with_code_3_and_a_drop_among_them_with_1(home: Home) -> None:
    def other_versions(manifest: dict[str, Any]) -> None:
        manifest["environment"]["packages"]["torch"] = "1.0"

    home.change_original("manifest.json", other_versions)
    home.change_original("result.json", lambda result: result.update(weights_sha256="other"))
    done = home.pcd(*_AGAIN)
    assert done.returncode == 3, done.stdout + done.stderr
    (cell,) = json.loads(done.stdout)["cells"]
    assert (cell["outcome"], cell["reasons"][0][:26]) == ("not comparable", "versions: torch 1.0 -> 2.1")

    home.change_original("result.json", lambda result: result["metrics"].update({"bbox/AP": 50.0}))
    done = home.pcd(*_AGAIN)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "rerun of smoke: 1 not comparable (regressed)" in done.stderr
    assert "box AP 50.00 -> " in done.stderr
