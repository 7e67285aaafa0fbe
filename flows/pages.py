"""`pcd ui`: MLflow's and Prefect's pages over this machine's results, on loopback only."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from flows.home import MLFLOW_PORT, PREFECT_PORT, home, set_environment, tracking_uri
from flows.interrupt import treat_sigterm_as_ctrl_c
from flows.run_record import latest_record
from flows.supervisor import stop_group
from pcd.errors import PCDError

__all__ = ["serve_pages"]

_HOST = "127.0.0.1"
_START_SECONDS = 120
_STOP_SECONDS = 15


def serve_pages(mlflow_port: int | None, prefect_port: int | None) -> None:
    """Start both servers, print their addresses, and serve until Ctrl-C.

    Raises PCDError if a port is taken, or if the user has set servers of his own, whose pages are there already.
    """
    set_environment()
    treat_sigterm_as_ctrl_c()
    if not home().exists():
        raise PCDError(f"{home()} does not exist; run a benchmark first (pcd run demo), or set PCD_HOME")
    for variable in ("MLFLOW_TRACKING_URI", "PREFECT_API_URL"):
        if os.environ.get(variable, "").startswith("http"):
            raise PCDError(
                f"{variable} names a server: it has its own pages; unset it to serve ours"
            )
    mlflow, prefect = mlflow_port or MLFLOW_PORT, prefect_port or PREFECT_PORT
    for port, option in ((mlflow, "--mlflow-port"), (prefect, "--prefect-port")):
        if _answers(port):
            raise PCDError(f"port {port} is taken on {_HOST}; choose another with {option}")
    logs = home() / "logs"
    logs.mkdir(exist_ok=True)
    servers: list[subprocess.Popen[bytes]] = []
    try:
        servers.append(_start(_mlflow_server(mlflow), logs / "mlflow-server.log"))
        os.environ["PREFECT_UI_API_URL"] = f"http://{_HOST}:{prefect}/api"  # the page asks the server it came from
        servers.append(_start(_prefect_server(prefect), logs / "prefect-server.log"))
        _wait_until_both_answer(servers, (mlflow, prefect), logs)
        record = latest_record()
        print(f"MLflow:  http://{_HOST}:{mlflow}" + (_path(record.mlflow_page) if record else ""))
        print(f"Prefect: http://{_HOST}:{prefect}" + (_path(record.prefect_page) if record else ""))
        print("Ctrl-C ends both", flush=True)
        while all(server.poll() is None for server in servers):
            time.sleep(0.5)
        raise PCDError(f"a server ended by itself; its log is in {logs}")
    finally:
        for server in servers:
            stop_group(server, _STOP_SECONDS)


def _mlflow_server(port: int) -> list[str]:
    artifacts = (home() / "mlartifacts").as_uri()
    places = ["--backend-store-uri", tracking_uri(), "--artifacts-destination", artifacts]
    return ["mlflow", "server", "--host", _HOST, "--port", str(port), "--workers", "1", *places]


def _prefect_server(port: int) -> list[str]:
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


def _wait_until_both_answer(servers: list[subprocess.Popen[bytes]], ports: tuple[int, int], logs: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not all(_answers(port) for port in ports):
        if any(server.poll() is not None for server in servers) or time.monotonic() > deadline:
            raise PCDError(f"a server did not start; the reason is in {logs}/mlflow-server.log or prefect-server.log")
        time.sleep(0.3)


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((_HOST, port)) == 0
