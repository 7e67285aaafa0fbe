import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from flows.cli import main
from pcd.teachers import TEACHERS
from pcd.teachers.entry import PublishedHash
from pcd.teachers.pins import pin
from pcd.teachers.registry import DEMO_CHECKPOINT
from tests.conftest import Pcd

SHA256 = hashlib.sha256(DEMO_CHECKPOINT.read_bytes()).hexdigest()

Run = Callable[..., Result]


@pytest.fixture
def run(pcd_home: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`pcd teachers …` in this process."""
    monkeypatch.delenv("PCD_TEACHER_MIRROR", raising=False)
    return lambda *arguments: CliRunner().invoke(main, ["teachers", *map(str, arguments)])


@pytest.fixture
def stranger(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A teacher laid out as the demo's, which nobody serves and of which nothing is published."""
    entry = replace(
        TEACHERS["demo"], name="stranger", url=None, obtain="it from a friend", published_hash=None, size_bytes=None,
        noncommercial=True, reported_hash=PublishedHash("sha256", SHA256[:10]), unverified=("all of it",),
    )  # fmt: skip
    monkeypatch.setitem(TEACHERS, "stranger", entry)
    return "stranger"


def test_list_shows_every_teacher_with_its_terms_and_what_is_unverified(run: Run) -> None:
    lines = run("list").output.splitlines()
    for entry in TEACHERS.values():
        line = next(line for line in lines if line.split()[:1] == [entry.name])
        assert ("(not for commercial use)" in line) == entry.noncommercial
        assert entry.licence in line
        assert not entry.unverified or f" {len(entry.unverified)} " in line


def test_list_as_json_is_the_registry(run: Run) -> None:
    listed = json.loads(run("list", "--json").output)
    assert listed == json.loads(json.dumps([entry.describe() for entry in TEACHERS.values()]))


@pytest.mark.parametrize("name", TEACHERS)
def test_show_tells_source_address_and_every_unverified_fact(run: Run, name: str) -> None:
    entry, told = TEACHERS[name], run("show", name).output
    for fact in (entry.title, entry.licence, entry.url or entry.obtain, entry.source, *entry.unverified):
        assert fact is not None
        assert fact in told


def test_show_as_json_is_the_entry(run: Run) -> None:
    told = json.loads(run("show", "swav_r50_800", "--json").output)
    assert told["std"] == [0.228, 0.224, 0.225]


def test_shipped_teacher_is_fetched_where_it_lies(run: Run) -> None:
    done = run("fetch", "demo")
    assert done.exit_code == 0
    assert done.output.splitlines() == [
        f"file    {DEMO_CHECKPOINT}",
        f"from    {DEMO_CHECKPOINT}",
        f"sha256  {SHA256}",
        "hash    published",
    ]


def test_fetched_file_is_pinned_kept_and_held_against_hearsay(run: Run, stranger: str, pcd_home: Path) -> None:
    told = run("fetch", stranger, "--file", DEMO_CHECKPOINT).output
    kept = pcd_home / "teachers" / "stranger" / "stranger.pth"
    assert f"file    {kept}\n" in told
    assert "hash    pinned in teachers.lock.json" in told
    assert "equals the sha256" in told
    assert kept.read_bytes() == DEMO_CHECKPOINT.read_bytes()
    assert run("fetch", stranger).exit_code == 0


def test_noncommercial_weights_are_announced(run: Run, stranger: str) -> None:
    assert "not for commercial use" in run("fetch", stranger, "--file", DEMO_CHECKPOINT).stderr


@pytest.mark.parametrize("by", ["option", "environment"])
def test_mirror_is_looked_into(
    run: Run, stranger: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    place = tmp_path / "mirror" / "stranger" / "any.pth"
    place.parent.mkdir(parents=True)
    place.write_bytes(DEMO_CHECKPOINT.read_bytes())
    options = ["--mirror", tmp_path / "mirror"] if by == "option" else []
    if by == "environment":
        monkeypatch.setenv("PCD_TEACHER_MIRROR", str(tmp_path / "mirror"))
    assert f"from    {place}\n" in run("fetch", stranger, *options).output


def test_change_of_a_pinned_file_is_refused_until_it_is_accepted(run: Run, stranger: str, pcd_home: Path) -> None:
    pcd_home.mkdir()
    pin(TEACHERS[stranger], "0" * 64, 1, "elsewhere", pcd_home)
    refused = run("fetch", stranger, "--file", DEMO_CHECKPOINT)
    assert refused.exit_code == 2
    assert "run `pcd teachers fetch stranger --accept-change`" in refused.stderr
    assert run("fetch", stranger, "--file", DEMO_CHECKPOINT, "--accept-change").exit_code == 0
    assert "as pinned" in run("verify", stranger).output


def test_file_of_another_teacher_is_not_kept(run: Run, pcd_home: Path) -> None:
    done = run("fetch", "byol_r50_airl", "--file", DEMO_CHECKPOINT)
    assert done.exit_code == 2
    assert 'has no "model" with tensors' in done.stderr
    assert not (pcd_home / "teachers.lock.json").exists()


def test_verify_without_a_name_takes_all_that_are_here(run: Run, stranger: str) -> None:
    run("fetch", stranger, "--file", DEMO_CHECKPOINT)
    lines = run("verify").output.splitlines()
    assert [line.split() for line in lines] == [
        ["ok", "demo", SHA256, "as", "published"],
        ["ok", "stranger", SHA256, "as", "pinned"],
    ]


def test_verify_names_a_file_that_was_damaged(run: Run, stranger: str, pcd_home: Path, tmp_path: Path) -> None:
    copied = tmp_path / "copy.pth"
    copied.write_bytes(DEMO_CHECKPOINT.read_bytes())
    run("fetch", stranger, "--file", copied)
    kept = pcd_home / "teachers" / "stranger" / "stranger.pth"
    kept.write_bytes(kept.read_bytes()[:-1] + b"x")
    done = run("verify", stranger)
    assert done.exit_code == 1
    assert done.output.startswith(f"FAULT {kept} has SHA-256")


def test_verify_of_a_teacher_that_is_not_here_says_how_to_fetch_it(run: Run) -> None:
    done = run("verify", "barlow_r50_1000")
    assert done.exit_code == 2
    assert "run `pcd teachers fetch barlow_r50_1000`" in done.stderr


@pytest.mark.parametrize("command", ["show", "fetch", "verify"])
def test_misspelt_teacher_is_answered_with_the_nearest(run: Run, command: str) -> None:
    done = run(command, "mocov3_r50")
    assert done.exit_code == 2
    assert 'unknown teacher "mocov3_r50": did you mean "mocov3_r50_' in done.stderr


@pytest.mark.slow
def test_the_real_command_fetches(pcd: Pcd) -> None:
    done = pcd("teachers", "fetch", "demo")
    assert done.returncode == 0, done.stderr
    assert f"sha256  {SHA256}" in done.stdout
