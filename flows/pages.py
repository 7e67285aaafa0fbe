"""`pcd ui`: MLflow's and Prefect's pages over this machine's results, on loopback only."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from flows.home import MLFLOW_PORT, PREFECT_PORT, home, set_environment, tracking_uri
from flows.run_record import latest_record
from pcd.errors import PCDError

__all__ = ["serve_pages"]

_HOST = "127.0.0.1"
_START_SECONDS = 120


def serve_pages(mlflow_port: int | None, prefect_port: int | None) -> None:
    """Start both servers, print their addresses, and serve until Ctrl-C. Raises PCDError if a port is taken."""
    set_environment()
    if not home().exists():
        raise PCDError(f"{home()} does not exist; run a benchmark first (pcd run demo), or set PCD_HOME")
    mlflow, prefect = mlflow_port or MLFLOW_PORT, prefect_port or PREFECT_PORT
    for port, option in ((mlflow, "--mlflow-port"), (prefect, "--prefect-port")):
        if _answers(port):
            raise PCDError(f"port {port} is taken on {_HOST}; choose another with {option}")
    logs = home() / "logs"
    logs.mkdir(exist_ok=True)
    servers = [
        _start(
            [*("mlflow", "server", "--host", _HOST, "--port", str(mlflow)),
             *("--backend-store-uri", tracking_uri(), "--artifacts-destination", (home() / "mlartifacts").as_uri()),
             *("--workers", "1")],
            logs / "mlflow-server.log",
        ),
        _start(["prefect", "server", "start", "--host", _HOST, "--port", str(prefect)], logs / "prefect-server.log",
               PREFECT_UI_API_URL=f"http://{_HOST}:{prefect}/api"),
    ]  # fmt: skip
    try:
        _wait_until_both_answer(servers, (mlflow, prefect), logs)
        record = latest_record()
        print(f"MLflow:  http://{_HOST}:{mlflow}" + (f"/{record.mlflow_page.split('/', 3)[3]}" if record else ""))
        print(f"Prefect: http://{_HOST}:{prefect}" + (f"/{record.prefect_page.split('/', 3)[3]}" if record else ""))
        print("Ctrl-C ends both", flush=True)
        while all(server.poll() is None for server in servers):
            time.sleep(0.5)
        raise PCDError(f"a server ended by itself; its log is in {logs}")
    finally:
        for server in servers:
            server.terminate()
        for server in servers:
            server.wait(30)


def _start(arguments: list[str], log: Path, **environment: str) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", *arguments], stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            env={**os.environ, **environment},
        )  # fmt: skip


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
