"""Schedules for real: a Prefect server, a process worker, deployments that fire, a verdict, and word of it."""

import contextlib
import hashlib
import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from mlflow import MlflowClient

from tests.conftest import ROOT
from tests.patience import PATIENCE

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning", "ignore::ResourceWarning"),
]

_TINY = ("smoke", "--set", "arms=[random]", "--set", "protocols.smoke_fpn.iterations=3")
_SECRET = "the-secret-part-of-the-address"
_CELL = "random.smoke_fpn.seed0"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Place:
    """A home with its Prefect server, and what is needed to look into both."""

    home: Path
    port: int
    messages: list[dict[str, str]] = field(default_factory=list)
    hook: str = ""

    @property
    def environment(self) -> dict[str, str]:
        foreign = ("MLFLOW_TRACKING_URI", "PREFECT_API_URL", "PREFECT_HOME")
        kept = {k: v for k, v in os.environ.items() if k not in foreign}
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])  # a worker runs elsewhere
        return kept | {
            "PCD_HOME": str(self.home), "PCD_LOCKS": str(self.home / "locks"), "PYTHONPATH": path,
            "PREFECT_HOME": str(self.home / "prefect"),
            "PREFECT_API_URL": f"http://127.0.0.1:{self.port}/api", "PREFECT_UI_URL": f"http://127.0.0.1:{self.port}",
            "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false", "PREFECT_WORKER_QUERY_SECONDS": "2",
            "PREFECT_SERVER_SERVICES_SCHEDULER_MAX_RUNS": "6", "HOOK": self.hook,  # not a hundred ahead
        }  # fmt: skip

    def pcd(self, *arguments: str) -> str:
        command = [sys.executable, "-m", "flows", *arguments]
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False, env=self.environment
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert _SECRET not in done.stdout + done.stderr
        return done.stdout

    def deploy(self, *arguments: str) -> dict[str, str]:
        """Name to what was done."""
        return {change["name"]: change["what"] for change in json.loads(self.pcd("deploy", *arguments, "--json"))}

    def start(self, log: str, *module: str) -> subprocess.Popen[bytes]:
        with (self.home / log).open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-m", *module], cwd=self.home, env=self.environment, stdout=output,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        url = f"http://127.0.0.1:{self.port}/api{path}"
        answer = httpx.get(url, timeout=60) if body is None else httpx.post(url, json=body, timeout=60)
        answer.raise_for_status()
        return answer.json()

    def runs_of(self, deployment: str) -> list[dict[str, Any]]:
        """Those that were due, the earliest first."""
        deployment_id = self.ask(f"/deployments/name/{deployment}")["id"]
        found = self.ask(
            "/flow_runs/filter",
            {
                "deployments": {"id": {"any_": [deployment_id]}},
                "flow_runs": {"expected_start_time": {"before_": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}},
                "sort": "EXPECTED_START_TIME_ASC",
            },
        )
        return list(found)

    def states_of(self, deployment: str) -> list[str]:
        return [run["state_name"] for run in self.runs_of(deployment)]

    def wait(self, what: str, is_so: Callable[[], object], seconds: float = 420) -> None:
        deadline = time.monotonic() + seconds
        while not is_so():
            if time.monotonic() > deadline:
                logs = "".join(p.read_text(errors="replace")[-3000:] for p in self.home.glob("*.log"))
                raise AssertionError(f"{what} did not come about:\n{logs}")
            time.sleep(0.5)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """With the runs of a worker, for which it would wait."""
    try:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        pass
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    place = Place(tmp_path_factory.mktemp("schedules"), _free_port())

    class Hook(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            place.messages.append({"path": self.path, **json.loads(body)})
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    hook = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=hook.serve_forever, daemon=True).start()
    place.hook = f"http://127.0.0.1:{hook.server_port}/{_SECRET}"
    server = place.start("server.log", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(place.port))
    try:
        place.wait("the server", lambda: server.poll() is not None or _answers(place))
        yield place
    finally:
        _stop(server)
        hook.shutdown()
        hook.server_close()


def _answers(place: Place) -> bool:
    try:
        return bool(place.ask("/health"))
    except httpx.HTTPError:
        return False


@pytest.fixture(scope="module")
def benchmark_run(place: Place) -> Place:
    """A deployed benchmark that its schedule has started and a worker has run; no worker and no schedule is left."""
    assert place.deploy(*_TINY, "--interval", "10s", "--dry-run") == {"pcd": "created", "benchmark/smoke": "created"}
    assert place.deploy(*_TINY, "--interval", "10s") == {"pcd": "created", "benchmark/smoke": "created"}
    assert place.deploy(*_TINY, "--interval", "10s") == {"pcd": "unchanged", "benchmark/smoke": "unchanged"}
    worker = place.start("worker.log", "flows", "worker")
    try:
        place.wait("a scheduled run", lambda: "Completed" in place.states_of("benchmark/smoke"))
        assert place.deploy(*_TINY) == {"pcd": "unchanged", "benchmark/smoke": "updated"}
    finally:
        _stop(worker)
    return place


@pytest.fixture(scope="module")
def rerun_run(benchmark_run: Place) -> Place:
    """Its rerun, deployed after the original's result was given an AP of 50; three were late before a worker came.

    The three are asked for as by the form: of a run that the scheduler made less than five minutes before it starts,
    and that takes less than five, Prefect 3.8 tells its automations only a quarter of an hour later.
    """
    place = benchmark_run
    _give_ap_50(place.home)
    told = place.deploy("--rerun-of", "smoke", "--share", "data", "--cron", "0 3 * * 1", "--notify", "webhook=env:HOOK")
    assert set(told.values()) == {"unchanged", "created"}
    deployment = place.ask("/deployments/name/rerun/smoke")["id"]
    for _ in range(3):
        place.ask(f"/deployments/{deployment}/create_flow_run", {})
    place.wait("three late runs", lambda: place.states_of("rerun/smoke") == ["Late"] * 3)
    worker = place.start("worker.log", "flows", "worker")
    try:
        place.wait("a verdict", lambda: "Failed" in place.states_of("rerun/smoke"))
        place.wait("the notification", lambda: place.messages)
    finally:
        _stop(worker)
    return place


def _give_ap_50(home: Path) -> None:
    (folder,) = (home / "store" / "finetune").glob("[!.]*")
    result, manifest = folder / "result.json", json.loads((folder / "manifest.json").read_text())
    content = json.loads(result.read_text())
    content["metrics"] |= {"bbox/AP": 50.0, "segm/AP": 50.0}
    result.write_text(json.dumps(content))
    digest = hashlib.sha256(result.read_bytes()).hexdigest()
    manifest["files"]["result.json"] = {"bytes": result.stat().st_size, "sha256": digest}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def _mlflow_runs(home: Path) -> list[Any]:
    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    return list(client.search_runs([client.get_experiment_by_name("pcd-benchmarks").experiment_id]))


def test_a_benchmark_that_its_schedule_started_is_finished_in_mlflow(benchmark_run: Place) -> None:
    runs = [run for run in _mlflow_runs(benchmark_run.home) if "pcd.rerun_of" not in run.data.tags]
    (parent,) = [run for run in runs if run.data.tags["pcd.stage"] == "benchmark"]
    assert (parent.info.run_name, parent.info.status) == ("smoke", "FINISHED")


def test_a_deployment_shows_its_settings_as_a_form(benchmark_run: Place) -> None:
    deployment = benchmark_run.ask("/deployments/name/benchmark/smoke")
    settings = deployment["parameter_openapi_schema"]["definitions"]["Benchmark"]["properties"]
    assert settings["seeds"]["description"] == "each arm is pre-trained and fine-tuned once per seed"
    assert deployment["parameters"]["settings"]["protocols"]["smoke_fpn"]["iterations"] == 3


def test_deploying_without_a_schedule_takes_it_away_and_keeps_the_limit(benchmark_run: Place) -> None:
    deployment = benchmark_run.ask("/deployments/name/benchmark/smoke")
    assert (deployment["schedules"], deployment["global_concurrency_limit"]["limit"]) == ([], 1)


def test_a_rerun_that_is_not_reproduced_fails_with_the_difference_as_message(rerun_run: Place) -> None:
    message = next(run for run in rerun_run.runs_of("rerun/smoke") if run["state_name"] == "Failed")["state"]["message"]
    assert message.startswith("rerun of smoke: 1 not reproduced (regressed)\n")
    assert f"{_CELL}: not reproduced (regressed); box AP 50.00 -> " in message


def test_the_webhook_is_sent_the_difference_once(rerun_run: Place) -> None:
    (message,) = rerun_run.messages
    assert message["path"] == f"/{_SECRET}"
    assert message["subject"].endswith(": Failed")
    assert "box AP 50.00 -> " in message["text"]
    assert f"http://127.0.0.1:{rerun_run.port}/runs/flow-run/" in message["text"]


def test_of_three_late_runs_one_is_run_and_the_others_are_cancelled(rerun_run: Place) -> None:
    assert sorted(rerun_run.states_of("rerun/smoke")) == ["Cancelled", "Cancelled", "Failed"]
    messages = {run["state"]["message"] for run in rerun_run.runs_of("rerun/smoke") if run["state_name"] == "Cancelled"}
    assert messages == {"Deployment concurrency limit reached."}


def test_the_verdict_has_a_run_of_its_own_linked_with_both_others(rerun_run: Place) -> None:
    runs = _mlflow_runs(rerun_run.home)
    verdict = next(run for run in runs if run.data.tags["pcd.stage"] == "verdict")
    by_id = {run.info.run_id: run for run in runs}
    original, rerun = (by_id[verdict.data.tags[name]] for name in ("pcd.original_run", "pcd.rerun_run"))
    assert original.data.tags["pcd.last_verdict_run"] == rerun.data.tags["pcd.verdict_run"] == verdict.info.run_id
    assert rerun.data.tags["pcd.rerun_of"] == original.info.run_id
    assert (verdict.info.status, verdict.data.tags["pcd.regressed"]) == ("FAILED", "true")
    note = verdict.data.tags["mlflow.note.content"]
    assert note.startswith("**rerun of smoke: 1 not reproduced (regressed)**")
    assert "# Rerun of smoke" in note


def test_the_verdict_run_has_figure_tables_and_metrics(rerun_run: Place) -> None:
    verdict = next(run for run in _mlflow_runs(rerun_run.home) if run.data.tags["pcd.stage"] == "verdict")
    assert verdict.data.metrics[f"{_CELL}/bbox/AP original"] == 50.0
    assert verdict.data.metrics[f"{_CELL}/bbox/AP tolerance"] == 2.0
    client = MlflowClient(f"sqlite:///{rerun_run.home / 'mlflow.db'}")
    names = {artifact.path for artifact in client.list_artifacts(verdict.info.run_id)}
    assert names == {"verdict.png", "verdict.json", "verdict.csv", "verdict.md", "verdict.html"}


def test_the_original_is_still_the_latest_of_its_name(rerun_run: Place) -> None:
    told = json.loads(rerun_run.pcd("report", "smoke", "--json"))
    assert told["run"]["part"] is None


def test_no_log_and_no_page_holds_the_webhooks_address(rerun_run: Place) -> None:
    logs = [*rerun_run.home.glob("*.log"), *(rerun_run.home / "logs").glob("*")]
    assert [path for path in logs if _SECRET in path.read_text(errors="replace")] == []
    blocks = rerun_run.ask("/block_documents/filter", {})
    assert _SECRET not in json.dumps(blocks)
    assert _SECRET not in json.dumps(rerun_run.ask("/automations/filter", {}))


@pytest.mark.usefixtures("rerun_run")
def test_prefect_deploy_all_takes_our_prefect_yaml(place: Place) -> None:
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False, env=place.environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    deployment = place.ask("/deployments/name/rerun/latest")
    assert (deployment["entrypoint"], deployment["parameters"]["share"]) == ("flows.rerun.rerun", ["teacher", "data"])
    assert place.ask("/deployments/name/benchmark/paper")["parameters"]["settings"]["seeds"] == [0, 1, 2]
