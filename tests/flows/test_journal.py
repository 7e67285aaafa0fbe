from pathlib import Path

import pytest

from flows.journal import Journal, Run, read_journals


def _run(name: str = "a", started: float = 1.0) -> Run:
    stages = {"data": {"kind": "data", "key": "k1", "module": "m", "settings": {}, "labels": {}, "inputs": {}}}
    return Run(
        id=f"id-{name}", name=name, key="k", process="1:1", started=started, settings={"name": name}, stages=stages,
        environment={}, tracking_uri="sqlite:///x", artifacts="/x",
    )  # fmt: skip


def test_what_was_noted_is_read_back_by_another_process(tmp_path: Path) -> None:
    journal = Journal.begin(_run(), tmp_path)
    journal.note("running", "data", folder="/work")
    journal.note("done", "data", folder="/done")
    (read,) = read_journals(tmp_path)
    assert read.run == journal.run
    assert (read.stages["data"].status, read.stages["data"].folder) == ("done", "/done")
    assert read.outcome is None


def test_it_is_nobody_elses_to_read(tmp_path: Path) -> None:
    """The addresses of MLflow and Prefect may hold a password."""
    assert Journal.begin(_run(), tmp_path).path.stat().st_mode & 0o777 == 0o600


def test_an_event_that_a_kill_cut_short_never_happened(tmp_path: Path) -> None:
    journal = Journal.begin(_run(), tmp_path)
    journal.note("running", "data")
    with next(tmp_path.rglob("*.events.jsonl")).open("a") as file:
        file.write('{"status": "done", "sta')
    (read,) = read_journals(tmp_path)
    assert read.stages["data"].status == "running"


@pytest.mark.parametrize("bytes_left", range(0, 200, 7))
def test_events_behind_a_cut_one_are_read(tmp_path: Path, bytes_left: int) -> None:
    """Whoever closes the run of a dead process writes behind its last line, wherever that ends."""
    journal = Journal.begin(_run(), tmp_path)
    journal.note("running", "data", folder="/work")
    events = next(tmp_path.rglob("*.events.jsonl"))
    events.write_bytes(events.read_bytes()[:bytes_left])
    (read,) = read_journals(tmp_path)
    read.note("crashed", reason="died")
    (again,) = read_journals(tmp_path)
    assert again.outcome is not None
    assert again.outcome.status == "crashed"


def test_what_was_told_is_not_told_again_until_more_happens(tmp_path: Path) -> None:
    journal = Journal.begin(_run(), tmp_path)
    journal.note("finished")
    journal.mark_told("mlflow")
    (read,) = read_journals(tmp_path)
    assert (read.is_told("mlflow"), read.is_told("prefect")) == (True, False)
    read.note("failed", "data")
    (again,) = read_journals(tmp_path)
    assert (read.is_told("mlflow"), again.is_told("mlflow")) == (False, False)


def test_runs_are_read_in_the_order_of_their_start(tmp_path: Path) -> None:
    for name, started in (("late", 9.0), ("early", 2.0)):
        Journal.begin(_run(name, started), tmp_path)
    assert [journal.run.name for journal in read_journals(tmp_path)] == ["early", "late"]


def test_a_forgotten_run_leaves_no_file(tmp_path: Path) -> None:
    journal = Journal.begin(_run(), tmp_path)
    journal.note("finished")
    journal.forget()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_record_that_is_no_record_is_passed_over(tmp_path: Path) -> None:
    Journal.begin(_run(), tmp_path)
    (tmp_path / "active" / "broken.json").write_text('{"id": ')
    assert [journal.run.name for journal in read_journals(tmp_path)] == ["a"]
