import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flows.planning.keys import canonical_json, key_of, key_parts, source_files

ROOT = Path(__file__).parents[3]


def test_canonical_json_is_the_same_for_any_order_of_keys() -> None:
    assert canonical_json({"b": 1, "a": [1, 2]}) == canonical_json({"a": [1, 2], "b": 1}) == '{"a":[1,2],"b":1}'


def test_canonical_json_refuses_nan() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"a": float("nan")})


@pytest.mark.parametrize(
    "changed",
    [
        ({"a": 2}, {"i": "k"}, {"f": "h"}, "pcd.train"),
        ({"a": 1}, {"i": "other"}, {"f": "h"}, "pcd.train"),
        ({"a": 1}, {"i": "k"}, {"f": "other"}, "pcd.train"),
        ({"a": 1}, {"i": "k"}, {"f": "h"}, "eval.finetune"),
    ],
    ids=["settings", "inputs", "files", "source"],
)
def test_each_part_changes_the_key(changed: tuple[dict[str, int], dict[str, str], dict[str, str], str]) -> None:
    assert key_of(key_parts(*changed)) != key_of(key_parts({"a": 1}, {"i": "k"}, {"f": "h"}, "pcd.train"))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for package in ("pcd", "eval", "flows"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__", "*.tar"))
    return tmp_path


def _files(source: Path, module: str) -> dict[str, str]:
    code = f"import json; from flows.planning.keys import source_files; print(json.dumps(source_files({module!r})))"
    done = subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, text=True, check=True)
    files: dict[str, str] = json.loads(done.stdout)
    return files


def test_the_files_are_the_same_wherever_the_source_lies(source: Path) -> None:
    assert _files(source, "pcd.train") == source_files("pcd.train")


@pytest.mark.parametrize(
    ("touched", "module", "changes"),
    [
        ("pcd/pairing.py", "pcd.arms.pcd", True),
        ("pcd/arms/seed.py", "pcd.train", False),
        ("pcd/arms/registry.py", "pcd.train", False),
        ("pcd/loss.py", "eval.finetune", False),
        ("pcd/students.py", "eval.finetune", True),
        ("eval/detectron/config.py", "eval.finetune", True),
        ("eval/table.py", "eval.finetune", False),
        ("eval/ap_table.html.j2", "eval.aggregate", True),
        ("flows/planning/plan.py", "pcd.train", False),
    ],
)
def test_a_changed_file_changes_the_stages_that_run_it_and_no_others(
    source: Path, touched: str, module: str, changes: bool
) -> None:
    before = dict(source_files(module))
    (source / touched).write_text((source / touched).read_text() + "\n")
    after = _files(source, module)
    assert {path for path in after if after[path] != before.get(path)} == ({touched} if changes else set())


def test_another_named_protocol_leaves_every_fine_tuning_as_it_is() -> None:
    files = source_files("eval.finetune")
    assert "eval/finetune_settings.py" in files
    assert "eval/protocols.py" not in files


def test_what_tells_a_departure_counts_as_it_writes_into_results() -> None:
    assert "eval/departures.py" in source_files("eval.finetune")
    assert "eval/departures.py" in source_files("eval.probes.probe")


def test_how_a_profile_is_filled_up_leaves_every_fine_tuning_as_it_is() -> None:
    assert "eval/profile_protocols.py" not in source_files("eval.finetune")
