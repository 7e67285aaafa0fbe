import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pcd.cores import usable_cores
from pcd.errors import PCDError
from pcd.process_identity import identity
from pcd.stage import EXIT_STOPPED, EXIT_USER_ERROR, Metrics, Spec, read_spec, write_json, write_text
from tests.patience import PATIENCE
from tests.pcd.slow_parameters import slow_but

STAGE = """
import sys, time
from pcd.errors import PCDError
from pcd.process_identity import identity
from pcd.stage import Stopped, run_stage

def main(spec):
    match spec.settings["do"]:
        case "succeed":
            spec.metrics.log(1, 2, {"loss": 0.5})
            return {"answer": 42}
        case "refuse":
            raise PCDError("mend this and try again")
        case "crash":
            raise RuntimeError("a fault of ours")
        case "fill the disk":
            raise OSError(28, "No space left on device", "/some/file")
        case "lose a file":
            raise FileNotFoundError(2, "No such file", "/some/file")
        case "wait":
            print("waiting", flush=True)
            while not spec.stop_requested:
                time.sleep(0.01)
            raise Stopped

sys.exit(run_stage(main))
"""

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def command(tmp_path: Path, write_spec: Callable[..., Path]) -> Callable[[str], list[str]]:
    """What starts a real stage process that does as it is told."""
    (tmp_path / "stage.py").write_text(STAGE)
    return lambda what: [sys.executable, str(tmp_path / "stage.py"), str(write_spec({"do": what}))]


@pytest.fixture
def run(command: Callable[[str], list[str]], stage_environment: dict[str, str]) -> Run:
    def start(what: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            command(what),
            env=stage_environment | environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )

    return start


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def test_success_exits_with_0(run: Run) -> None:
    assert run("succeed").returncode == 0


def test_result_holds_what_the_stage_returned(run: Run, out: Path) -> None:
    run("succeed")
    assert json.loads((out / "result.json").read_text())["answer"] == 42


@pytest.mark.parametrize("key", ["seconds", "peak_memory_mb"])
def test_result_holds_what_the_stage_cost(run: Run, out: Path, key: str) -> None:
    run("succeed")
    assert json.loads((out / "result.json").read_text())[key] >= 0


def test_success_leaves_no_temporary_file(run: Run, out: Path) -> None:
    run("succeed")
    assert sorted(p.name for p in out.iterdir()) == ["metrics.jsonl", "result.json"]


def test_only_the_first_rank_writes(run: Run, out: Path) -> None:
    run("succeed", RANK="1")
    assert list(out.iterdir()) == []


def test_users_error_exits_with_2(run: Run) -> None:
    assert run("refuse").returncode == EXIT_USER_ERROR == 2


def test_users_error_stands_in_error_txt(run: Run, out: Path) -> None:
    run("refuse")
    assert (out / "error.txt").read_text() == "mend this and try again"


def test_users_error_is_printed_without_a_traceback(run: Run) -> None:
    assert run("refuse").stderr == "error: mend this and try again\n"


@pytest.mark.parametrize(("what", "kept"), [("succeed", False), ("refuse", True), ("crash", True)])
def test_the_checkpoint_stays_until_there_is_a_result(run: Run, out: Path, what: str, kept: bool) -> None:
    out.mkdir(exist_ok=True)
    (out / "checkpoint.pt").touch()
    run(what)
    assert (out / "checkpoint.pt").exists() is kept


def test_another_folder_may_take_the_place_of_the_specs(
    command: Callable[[str], list[str]], stage_environment: dict[str, str], out: Path, tmp_path: Path
) -> None:
    subprocess.run([*command("succeed"), str(tmp_path / "again")], env=stage_environment, check=True, timeout=PATIENCE)
    assert (tmp_path / "again" / "result.json").exists()
    assert not out.exists()


def test_a_stage_that_is_done_is_not_done_again(run: Run, out: Path) -> None:
    run("succeed")
    before = (out / "result.json").stat().st_mtime_ns
    assert run("succeed").returncode == 0
    assert (out / "result.json").stat().st_mtime_ns == before


def test_error_txt_of_an_earlier_try_is_gone_after_success(run: Run, out: Path) -> None:
    run("refuse")
    run("succeed")
    assert not (out / "error.txt").exists()


def test_full_disk_is_the_users_error(run: Run, out: Path) -> None:
    assert run("fill the disk").returncode == EXIT_USER_ERROR
    assert (out / "error.txt").read_text().startswith("no space left on the disk")


@pytest.mark.parametrize(("what", "named"), [("crash", "a fault of ours"), ("lose a file", "/some/file")])
def test_other_exceptions_keep_their_traceback(run: Run, what: str, named: str) -> None:
    finished = run(what)
    assert finished.returncode == 1
    assert "Traceback" in finished.stderr
    assert named in finished.stderr


@pytest.mark.parametrize("what", slow_but(("refuse", "crash"), ["refuse", "crash", "fill the disk", "lose a file"]))
def test_failure_leaves_no_result(run: Run, out: Path, what: str) -> None:
    run(what)
    assert not (out / "result.json").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stage_that_is_asked_to_stop_exits_with_75(
    command: Callable[[str], list[str]], stage_environment: dict[str, str], out: Path, number: signal.Signals
) -> None:
    with subprocess.Popen(command("wait"), env=stage_environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(number)
        assert process.wait(PATIENCE) == EXIT_STOPPED == 75
    assert not (out / "result.json").exists()


def test_a_supervised_stage_stops_when_its_parent_is_killed(
    command: Callable[[str], list[str]], stage_environment: dict[str, str], tmp_path: Path
) -> None:
    log = tmp_path / "log.txt"
    parent = (
        "import os, subprocess, sys; from pcd.process_identity import identity;"
        "os.environ['PCD_SUPERVISOR'] = identity();"
        f"f = open({str(log)!r}, 'w'); subprocess.run(sys.argv[1:], stdout=f, stderr=f)"
    )
    with subprocess.Popen([sys.executable, "-c", parent, *command("wait")], env=stage_environment) as process:
        _wait_until(lambda: log.exists() and "waiting" in log.read_text())
        process.kill()
    _wait_until(lambda: "stopped behind a checkpoint" in log.read_text())


def test_a_supervised_stage_whose_parent_is_gone_already_does_not_begin(run: Run, out: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as gone:
        mark = identity(gone.pid)
        gone.kill()
    assert run("succeed", PCD_SUPERVISOR=mark).returncode == EXIT_STOPPED
    assert not (out / "result.json").exists()


def test_a_second_process_waits_until_the_first_has_left_the_folder(
    command: Callable[[str], list[str]], stage_environment: dict[str, str], tmp_path: Path
) -> None:
    first = subprocess.Popen(command("wait"), env=stage_environment, stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    assert first.stdout.readline() == "waiting\n"
    second = subprocess.Popen(command("succeed"), env=stage_environment)
    deadline = time.monotonic() + PATIENCE
    while not (tmp_path / "out" / "activity.json").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    with pytest.raises(subprocess.TimeoutExpired):
        second.wait(2)
    told = json.loads((tmp_path / "out" / "activity.json").read_text())
    assert told["phase"] == "waiting for another process to leave the folder"
    first.terminate()
    assert first.communicate(timeout=PATIENCE)[0] == ""
    assert (first.returncode, second.wait(PATIENCE)) == (EXIT_STOPPED, 0)


def test_an_activity_is_told_when_it_changes_and_else_once_a_second(make_spec: Callable[..., Spec]) -> None:
    spec = make_spec({})

    def told(phase: str, done: int, total: int) -> tuple[str, int]:
        spec.activity(phase, done, total)
        record = json.loads((spec.out / "activity.json").read_text())
        return record["phase"], record["done"]

    assert told("evaluation", 0, 9) == ("evaluation", 0)
    assert told("evaluation", 1, 9) == ("evaluation", 0)
    assert told("export", 2, 9) == ("export", 2)
    assert told("export", 9, 9) == ("export", 9)


def test_an_activity_that_cannot_be_told_ends_nothing(make_spec: Callable[..., Spec]) -> None:
    spec = make_spec({})
    spec.out.rmdir()
    spec.activity("evaluation", 0, 9)


def test_another_rank_tells_no_activity(make_spec: Callable[..., Spec], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    spec = make_spec({})
    spec.activity("evaluation", 0, 9)
    assert list(spec.out.iterdir()) == []


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_command_without_spec_is_told_its_usage(stage_environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "stage.py").write_text(STAGE)
    finished = subprocess.run(
        [sys.executable, str(tmp_path / "stage.py")], env=stage_environment, capture_output=True, text=True, check=False
    )
    assert finished.returncode == EXIT_USER_ERROR
    assert finished.stderr.startswith("usage: ")


def test_a_missing_spec_exits_with_2_and_one_line(stage_environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "stage.py").write_text(STAGE)
    finished = subprocess.run(
        [sys.executable, str(tmp_path / "stage.py"), str(tmp_path / "none.json")],
        env=stage_environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert finished.returncode == EXIT_USER_ERROR
    assert finished.stderr.count("\n") == 1


def test_spec_is_read_as_it_was_written(make_spec: Callable[..., Spec], tmp_path: Path) -> None:
    spec = make_spec({"seed": 3}, {"data": tmp_path / "d"}, threads=5)
    assert (spec.settings, spec.inputs, spec.out) == ({"seed": 3}, {"data": tmp_path / "d"}, tmp_path / "out")
    assert spec.runtime["threads"] == 5


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "3", "null", "{}", '{"out": 3}', json.dumps({"out": "x", "stage": "s", "title": "t"})],
)
def test_a_file_that_is_no_spec_is_the_users_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "spec.json").write_text(content)
    with pytest.raises(PCDError, match=r"spec\.json is not a stage spec"):
        read_spec(tmp_path / "spec.json")


@pytest.mark.parametrize("key", ["stage", "title", "settings", "inputs", "out", "runtime"])
def test_a_spec_that_lacks_a_key_is_the_users_error(write_spec: Callable[..., Path], key: str) -> None:
    path = write_spec({})
    spec = json.loads(path.read_text())
    del spec[key]
    path.write_text(json.dumps(spec))
    with pytest.raises(PCDError, match=key):
        read_spec(path)


def test_inputs_that_are_no_mapping_are_the_users_error(write_spec: Callable[..., Path]) -> None:
    path = write_spec({})
    path.write_text(json.dumps(json.loads(path.read_text()) | {"inputs": ["teacher"]}))
    with pytest.raises(PCDError, match="is not a stage spec"):
        read_spec(path)


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_metrics_are_one_flat_object_a_line(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path / "m.jsonl")
    metrics.log(1, 9, {"loss": 0.5})
    metrics.log(2, 9)
    assert [{k: v for k, v in line.items() if k != "time"} for line in _lines(tmp_path / "m.jsonl")] == [
        {"step": 1, "total": 9, "loss": 0.5},
        {"step": 2, "total": 9},
    ]


def test_metrics_carry_the_time(tmp_path: Path) -> None:
    before = time.time()
    Metrics(tmp_path / "m.jsonl").log(1, 9)
    assert before - 0.01 <= _lines(tmp_path / "m.jsonl")[0]["time"] <= time.time() + 0.01


def test_ranks_behind_the_first_write_no_metrics(tmp_path: Path) -> None:
    Metrics(tmp_path / "m.jsonl", is_writer=False).log(1, 9)
    assert not (tmp_path / "m.jsonl").exists()


def test_drop_after_keeps_the_steps_up_to_the_checkpoint(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path / "m.jsonl")
    for step in range(1, 6):
        metrics.log(step, 9)
    metrics.drop_after(3)
    assert [line["step"] for line in _lines(tmp_path / "m.jsonl")] == [1, 2, 3]


@pytest.mark.parametrize("cut", [1, 5, 12, -2])
def test_drop_after_forgets_a_line_that_was_cut_off(tmp_path: Path, cut: int) -> None:
    metrics = Metrics(tmp_path / "m.jsonl")
    metrics.log(1, 9)
    whole = (tmp_path / "m.jsonl").read_text()
    (tmp_path / "m.jsonl").write_text(whole + whole[:cut])
    metrics.drop_after(5)
    metrics.log(2, 9)
    assert [line["step"] for line in _lines(tmp_path / "m.jsonl")] == [1, 2]


def test_drop_after_does_nothing_before_the_first_line(tmp_path: Path) -> None:
    Metrics(tmp_path / "m.jsonl").drop_after(3)
    assert list(tmp_path.iterdir()) == []


def test_ranks_behind_the_first_drop_nothing(tmp_path: Path) -> None:
    Metrics(tmp_path / "m.jsonl").log(7, 9)
    Metrics(tmp_path / "m.jsonl", is_writer=False).drop_after(0)
    assert [line["step"] for line in _lines(tmp_path / "m.jsonl")] == [7]


def test_json_that_cannot_be_written_leaves_the_old_file(tmp_path: Path) -> None:
    write_json(tmp_path / "r.json", {"a": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "r.json", {"a": object()})
    assert json.loads((tmp_path / "r.json").read_text()) == {"a": 1}


def test_threads_that_are_left_open_are_the_cores_that_it_may_use(write_spec: Callable[..., Path]) -> None:
    assert read_spec(write_spec({}, threads=0)).runtime["threads"] == usable_cores()


def test_a_pipe_that_is_written_to_stays_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_text(tmp_path / "pipe", "told")
        assert os.read(reader, 10) == b"told"
    finally:
        os.close(reader)
    assert (tmp_path / "pipe").is_fifo()


def test_a_link_that_is_written_to_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "file").write_text("before")
    write_text(tmp_path / "link", "told")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text() == "told"
