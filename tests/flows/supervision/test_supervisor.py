import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from eval.metric_lines import MetricLine
from flows.planning.plan import make_plan
from flows.profiles import load_profile
from flows.settings import Runtime
from flows.supervision.stage_command import stage_command, write_spec
from flows.supervision.supervisor import run_process
from pcd.errors import PCDError, StageFailedError


def _ignore(lines: list[MetricLine]) -> None:
    pass


def _run(
    work: Path, code: str, on_metrics: Callable[[list[MetricLine]], None] = _ignore, stop_seconds: float = 5
) -> None:
    run_process([sys.executable, "-c", code, str(work)], work, on_metrics, stop_seconds=stop_seconds)


_DONE = "import sys, pathlib; work = pathlib.Path(sys.argv[1]); (work / 'result.json').write_text('{}');"


def test_metrics_arrive_whole_and_once_while_the_stage_runs(tmp_path: Path) -> None:
    code = _DONE + (
        "import time; file = (work / 'metrics.jsonl').open('a')\n"
        "for step in range(5):\n"
        "    file.write('{\"step\": %d' % step); file.flush(); time.sleep(0.15)\n"
        "    file.write(', \"total\": 5}\\n'); file.flush(); time.sleep(0.15)\n"
    )
    calls: list[list[MetricLine]] = []
    _run(tmp_path, code, calls.append)
    assert [line["step"] for lines in calls for line in lines] == [0, 1, 2, 3, 4]
    assert sum(1 for lines in calls if lines) > 1


def test_what_an_interrupted_run_wrote_is_not_told_again(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "total": 9}\n')
    seen: list[MetricLine] = []
    _run(tmp_path, _DONE + "(work / 'metrics.jsonl').open('a').write('{\"step\": 2, \"total\": 9}\\n')", seen.extend)
    assert [line["step"] for line in seen] == [2]


def test_a_line_for_the_user_becomes_the_error(tmp_path: Path) -> None:
    code = "import sys, pathlib; pathlib.Path(sys.argv[1], 'error.txt').write_text('free some space'); sys.exit(2)"
    with pytest.raises(PCDError, match=r"^free some space$"):
        _run(tmp_path, code)


def test_any_other_failure_shows_the_last_lines_and_the_log(tmp_path: Path) -> None:
    with pytest.raises(StageFailedError) as caught:
        _run(tmp_path, "print('before'); raise RuntimeError('the wheel came off')")
    assert "the wheel came off" in str(caught.value)
    assert str(tmp_path / "log.txt") in str(caught.value)


def test_a_killed_stage_is_named_so(tmp_path: Path) -> None:
    with pytest.raises(StageFailedError, match="was killed by SIGKILL"):
        _run(tmp_path, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")


def test_exit_code_0_without_a_result_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(StageFailedError, match="ended with code 0"):
        _run(tmp_path, "pass")


def test_no_address_of_a_server_reaches_a_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", "x")
    monkeypatch.setenv("PREFECT_API_URL", "x")
    _run(tmp_path, _DONE + "import os; assert not [n for n in os.environ if n.startswith(('MLFLOW_', 'PREFECT_'))]")


def _interrupt_when(path: Path) -> None:
    """What Ctrl-C does, as soon as `path` exists."""

    def wait() -> None:
        while not path.exists():
            time.sleep(0.02)
        os.kill(os.getpid(), 2)

    threading.Thread(target=wait, daemon=True).start()


def test_an_interrupt_lets_the_stage_save_its_checkpoint(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib, signal, time; work = pathlib.Path(sys.argv[1])\n"
        "def stop(*_): (work / 'checkpoint.pt').write_text('saved'); sys.exit(75)\n"
        "signal.signal(signal.SIGTERM, stop); (work / 'ready').touch()\n"
        "while True: time.sleep(0.05)"
    )
    _interrupt_when(tmp_path / "ready")
    with pytest.raises(KeyboardInterrupt):
        _run(tmp_path, code)
    assert (tmp_path / "checkpoint.pt").read_text() == "saved"


def test_a_stage_that_does_not_stop_is_killed_with_its_children(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib, signal, subprocess, time; work = pathlib.Path(sys.argv[1])\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "(work / 'pids.part').write_text(f'{child.pid}'); (work / 'pids.part').rename(work / 'pids')\n"
        "time.sleep(600)"
    )
    _interrupt_when(tmp_path / "pids")
    with pytest.raises(KeyboardInterrupt):
        _run(tmp_path, code, stop_seconds=0.5)
    assert _is_gone(int((tmp_path / "pids").read_text()))


def _is_gone(pid: int) -> bool:
    for _ in range(50):
        stat = Path(f"/proc/{pid}/stat")
        if not stat.exists() or stat.read_text().rsplit(")", 1)[1].split()[0] == "Z":
            return True
        time.sleep(0.1)
    return False


def test_a_spec_holds_all_that_the_stage_reads(tmp_path: Path) -> None:
    stage = make_plan(load_profile("smoke")).stages[2]
    path = write_spec(stage, tmp_path, {"data": tmp_path / "d"}, Runtime(threads=3))
    spec = json.loads(path.read_text())
    assert spec["settings"] == stage.settings
    assert (spec["inputs"], spec["out"], spec["runtime"]["threads"]) == (
        {"data": str(tmp_path / "d")},
        str(tmp_path),
        3,
    )


def test_several_ranks_are_started_by_torchrun_and_single_stages_never(tmp_path: Path) -> None:
    plan = make_plan(load_profile("smoke"))
    commands = {s.kind: stage_command(s, tmp_path / "spec.json", Runtime(processes=4)) for s in plan.stages}
    assert "--nproc-per-node=4" in commands["pretrain"]
    assert commands["data"] == [sys.executable, "-m", "eval.prepare_data", str(tmp_path / "spec.json")]


def test_several_machines_meet_where_the_settings_say(tmp_path: Path) -> None:
    stage = next(s for s in make_plan(load_profile("smoke")).stages if s.kind == "pretrain")
    runtime = Runtime(processes=4, nodes=2, rendezvous="gpu1.local:29500")
    command = stage_command(stage, tmp_path / "spec.json", runtime)
    assert "--shutdown-timeout=60" in command  # what stop_seconds promises
    assert {"--nnodes=2", "--nproc-per-node=4", "--rdzv-endpoint=gpu1.local:29500"} <= set(command)


def test_several_machines_without_a_meeting_point_are_refused() -> None:
    with pytest.raises(ValueError, match=r"runtime\.rendezvous"):
        Runtime(nodes=2)
