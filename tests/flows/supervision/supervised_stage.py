"""A stage that does as it is told, over gloo ranks or alone: the subject of the supervisor's tests."""

import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any

from pcd.stage import Spec, Stopped, run_stage


def act(spec: Spec) -> dict[str, Any]:
    what = spec.settings["do"]
    if "WORLD_SIZE" in os.environ:
        from pcd.distributed import process_group

        with process_group("cpu", found_result=spec.found_result):
            return _do(spec, what)
    return _do(spec, what)


def _do(spec: Spec, what: str) -> dict[str, Any]:
    rank = os.environ.get("RANK", "0")
    if what == "deafly wait":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if what == "save slowly":
        signal.signal(signal.SIGTERM, lambda *_: None)
        (spec.out / f"ready-{rank}").touch()
        while not (spec.out / "may-save").exists():
            time.sleep(0.02)
        return {"attempt": "first"}
    if what == "hang":
        threading.Event().wait()
    if what == "leave a child":
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    (spec.out / f"ready-{rank}").touch()
    if what in ("succeed", "leave a child"):
        return {}
    if what == "tell a phase":
        for done in range(4):
            spec.activity("evaluation", done, 3)
            time.sleep(0.4 if done < 3 else 3)  # the last one is to be seen also from a busy machine
        return {}
    if what == "finish and be killed":
        from pcd.stage import write_json

        write_json(spec.out / "result.json", {"answer": 42})
        os.kill(os.getpid(), signal.SIGKILL)
    while not spec.stop_requested or what == "deafly wait":
        if what == "progress":
            spec.metrics.log(1, 2)
        time.sleep(0.02)
    if spec.is_first_rank:
        (spec.out / "checkpoint.pt").touch()
        (spec.out / "checkpoint.json").write_text('{"step": 7}')
    raise Stopped


if __name__ == "__main__":
    sys.exit(run_stage(act))
