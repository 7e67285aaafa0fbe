"""`pcd ui`: MLflow's and Prefect's pages over this machine's results, on loopback only."""

import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from flows.home import MLFLOW_PORT, PREFECT_PORT, home, set_environment, tracking_uri
from flows.interrupt import treat_sigterm_as_ctrl_c
from flows.run_record import latest_record
from flows.supervision.supervisor import stop_group
from pcd.errors import PCDError

__all__ = ["serve_pages"]

_HOST = "127.0.0.1"
_START_SECONDS = 120
_STOP_SECONDS = 15


def serve_pages(mlflow_port: int | None, prefect_port: int | None) -> None:
    """Start both servers, print their addresses, and serve until Ctrl-C.

    A server that MLFLOW_TRACKING_URI or PREFECT_API_URL names has its own pages and is left alone; where both do, there
    is nothing to serve.

    Raises PCDError if a port is taken.
    """
    set_environment()
    treat_sigterm_as_ctrl_c()
    if not home().exists():
        raise PCDError(f"{home()} does not exist; run a benchmark first (pcd run demo), or set PCD_HOME")
    ports = {}
    for name, port, option, variable in (
        ("mlflow", mlflow_port or MLFLOW_PORT, "--mlflow-port", "MLFLOW_TRACKING_URI"),
        ("prefect", prefect_port or PREFECT_PORT, "--prefect-port", "PREFECT_API_URL"),
    ):
        if os.environ.get(variable, "").startswith("http"):
            print(f"{name}: on the server that {variable} names")
            continue
        if _answers(port):
            raise PCDError(f"port {port} is taken on {_HOST}; choose another with {option}")
        ports[name] = port
    if not ports:
        return
    logs = home() / "logs"
    logs.mkdir(exist_ok=True)
    commands = {"mlflow": _mlflow_server, "prefect": _prefect_server}
    with ExitStack() as stack:
        servers = []
        for name, port in ports.items():
            servers.append(_start(commands[name](port), logs / f"{name}-server.log"))
            stack.callback(stop_group, servers[-1], _STOP_SECONDS)
        _wait_until_all_answer(servers, list(ports.values()), logs)
        record = latest_record()
        pages = {
            "mlflow": ("MLflow: ", record and record.mlflow_page),
            "prefect": ("Prefect:", record and record.prefect_page),
        }
        for name, port in ports.items():
            label, page = pages[name]
            print(f"{label} http://{_HOST}:{port}{_path(page) if page else ''}")
        print("Ctrl-C ends this", flush=True)
        while all(server.poll() is None for server in servers):
            time.sleep(0.5)
        raise PCDError(f"a server ended by itself; its log is in {logs}")


def _mlflow_server(port: int) -> list[str]:
    artifacts = (home() / "mlartifacts").as_uri()
    os.environ["MLFLOW_BACKEND_STORE_URI"] = tracking_uri()  # no argument: those are everybody's to read
    places = ["--artifacts-destination", artifacts]
    return ["mlflow", "server", "--host", _HOST, "--port", str(port), "--workers", "1", *places]


def _prefect_server(port: int) -> list[str]:
    os.environ["PREFECT_UI_API_URL"] = f"http://{_HOST}:{port}/api"  # the page asks the server it came from
    os.environ["PREFECT_UI_URL"] = f"http://{_HOST}:{port}"  # of the links in its notifications
    return ["prefect", "server", "start", "--host", _HOST, "--port", str(port)]


def _path(address: str) -> str:
    """What stands behind the host and port, which may be others today."""
    return "/" + address.split("/", 3)[3]


def _start(arguments: list[str], log: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", *arguments]
    with log.open("ab") as output:
        return subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True
        )


def _wait_until_all_answer(servers: list[subprocess.Popen[bytes]], ports: list[int], logs: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not all(_answers(port) for port in ports):
        if any(server.poll() is not None for server in servers) or time.monotonic() > deadline:
            raise PCDError(f"a server did not start; the reason is in {logs}/mlflow-server.log or prefect-server.log")
        time.sleep(0.3)


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((_HOST, port)) == 0
