import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from pcd.errors import PCDError
from pcd.stage import Spec, Stopped
from pcd.teachers import TEACHERS, load_teacher
from pcd.teachers.registry import DEMO_CHECKPOINT
from pcd.teachers.stage import fetch_and_convert
from tests.patience import PATIENCE
from tests.pcd.teachers.conftest import Publisher

RunStage = Callable[..., dict[str, Any]]


@pytest.fixture
def spec(make_spec: Callable[..., Spec], tmp_path: Path) -> Callable[..., Spec]:
    """Of the demo's teacher, with a home beside it; keywords are runtime."""

    def make(name: str = "demo", **runtime: Any) -> Spec:
        return make_spec({"teacher": name}, home=str(tmp_path / "home"), **runtime)

    return make


@pytest.fixture
def unpublished(monkeypatch: pytest.MonkeyPatch, publisher: Publisher) -> Publisher:
    """The demo's file as if it were a stranger's: served, and nothing known of it."""
    publisher.content = DEMO_CHECKPOINT.read_bytes()
    stranger = replace(TEACHERS["demo"], url=publisher.address, published_hash=None, size_bytes=None)
    monkeypatch.setitem(TEACHERS, "demo", stranger)
    return publisher


def test_stage_leaves_the_converted_teacher_alone(spec: Callable[..., Spec]) -> None:
    made = spec()
    result = fetch_and_convert(made)
    assert [path.name for path in made.out.iterdir()] == ["teacher.safetensors"] == [result["file"]]


def test_converted_teacher_maps_as_the_publishers_file_does(spec: Callable[..., Spec]) -> None:
    made = spec()
    file = made.out / fetch_and_convert(made)["file"]
    images = torch.randn(2, 3, 64, 64)
    for keep in (True, False):
        ours = load_teacher("demo", file, keep_last_norm=keep)(images)
        assert torch.equal(ours, load_teacher("demo", DEMO_CHECKPOINT, keep_last_norm=keep)(images))


def test_converted_teacher_says_what_it_was_made_from(spec: Callable[..., Spec]) -> None:
    made = spec()
    result = fetch_and_convert(made)
    with safe_open(made.out / result["file"], "pt") as file:
        assert file.metadata()["source_sha256"] == result["sha256"]


@pytest.mark.parametrize(
    ("key", "expected"),
    {
        "file": "teacher.safetensors",
        "source": str(DEMO_CHECKPOINT),
        "sha256": TEACHERS["demo"].published_hash.hex_prefix,  # type: ignore[union-attr]
        "hash_was_published": True,
        "hash_as_reported": None,
        "licence": "Apache-2.0",
        "noncommercial": False,
        "map_channels": 128,
    }.items(),
)
def test_result_says(spec: Callable[..., Spec], key: str, expected: object) -> None:
    assert fetch_and_convert(spec())[key] == expected


def test_publishers_file_is_kept_in_the_home_for_the_next_time(
    spec: Callable[..., Spec], unpublished: Publisher, tmp_path: Path
) -> None:
    first, again = fetch_and_convert(spec()), fetch_and_convert(spec(name="demo"))
    assert first["source"] == unpublished.address
    assert again["source"] == str(tmp_path / "home" / "teachers" / "demo" / "tiny.pth.tar")
    assert len(unpublished.asked) == 1
    assert not again["hash_was_published"]
    assert (tmp_path / "home" / "teachers.lock.json").exists()


@pytest.mark.parametrize("source", ["teacher_file", "teacher_mirror"])
def test_runtime_names_other_sources(
    spec: Callable[..., Spec], unpublished: Publisher, tmp_path: Path, source: str
) -> None:
    place = tmp_path / "mirror" / "demo" / "tiny.pth.tar"
    place.parent.mkdir(parents=True)
    place.write_bytes(DEMO_CHECKPOINT.read_bytes())
    given = place if source == "teacher_file" else tmp_path / "mirror"
    assert fetch_and_convert(spec(**{source: str(given)}))["source"] == str(place)
    assert unpublished.asked == []


def test_unknown_teacher_is_the_users_error(spec: Callable[..., Spec]) -> None:
    with pytest.raises(PCDError, match='did you mean "demo"'):
        fetch_and_convert(spec("demmo"))


def test_nothing_is_left_of_a_file_that_is_no_teacher(
    spec: Callable[..., Spec], unpublished: Publisher, tmp_path: Path
) -> None:
    torch.save({"state_dict": {}}, tmp_path / "bad.pth.tar")
    unpublished.content = (tmp_path / "bad.pth.tar").read_bytes()
    made = spec()
    with pytest.raises(PCDError, match="no tensor under"):
        fetch_and_convert(made)
    assert not (made.out / "teacher.safetensors").exists()
    assert list((tmp_path / "home" / "teachers" / "demo").iterdir()) == []
    assert not (tmp_path / "home" / "teachers.lock.json").exists()


def test_download_is_told_as_metrics(spec: Callable[..., Spec], unpublished: Publisher) -> None:
    made = spec()
    fetch_and_convert(made)
    lines = [json.loads(line) for line in made.metrics.path.read_text().splitlines()]
    assert lines[-1]["step"] == lines[-1]["total"] == len(unpublished.content)


def test_stop_ends_the_download_and_the_next_try_goes_on(spec: Callable[..., Spec], unpublished: Publisher) -> None:
    made = spec()
    made.stop_requested = True
    with pytest.raises(Stopped):
        fetch_and_convert(made)
    fetch_and_convert(spec())
    assert unpublished.asked == ["", f"bytes={1 << 20}-"]


def test_rest_of_a_conversion_that_was_killed_is_cleared_away(spec: Callable[..., Spec]) -> None:
    made = spec()
    (made.out / ".tmpX1Y2Z3").write_bytes(b"half a file")
    fetch_and_convert(made)
    assert [path.name for path in made.out.iterdir()] == ["teacher.safetensors"]


@pytest.mark.slow
def test_stage_process_leaves_the_file_and_its_result(
    write_spec: Callable[..., Path], stage_environment: dict[str, str], tmp_path: Path
) -> None:
    spec_file = write_spec({"teacher": "demo"}, home=str(tmp_path / "home"))
    command = [sys.executable, "-m", "pcd.teachers.stage", str(spec_file)]
    subprocess.run(command, env=stage_environment, cwd=tmp_path, check=True, timeout=PATIENCE)
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert load_teacher("demo", tmp_path / "out" / result["file"])(torch.zeros(1, 3, 64, 64)).isfinite().all()
