import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.patience import PATIENCE

pytestmark = pytest.mark.slow


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def ports() -> tuple[int, int]:
    return _free_port(), _free_port()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, ports: tuple[int, int]) -> Iterator[tuple[list[str], Path]]:
    """What `pcd ui` printed until both pages answered; afterwards it is ended, and nobody listens any more."""
    home = tmp_path_factory.mktemp("home")
    arguments = ["ui", "--mlflow-port", str(ports[0]), "--prefect-port", str(ports[1])]
    foreign = ("MLFLOW_TRACKING_URI", "PREFECT_API_URL", "PREFECT_HOME")
    environment = {k: v for k, v in os.environ.items() if k not in foreign} | {"PCD_HOME": str(home)}
    command = [sys.executable, "-m", "flows", *arguments]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )
    assert process.stdout is not None
    told: list[str] = []
    while not told or not told[-1].startswith("Ctrl-C"):
        line = process.stdout.readline()
        assert line, f"pcd ui ended: {told}"
        told.append(line.strip())
    yield told, home
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    for port in ports:
        with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
            pass


def test_both_addresses_are_printed_and_on_loopback(served: tuple[list[str], Path], ports: tuple[int, int]) -> None:
    assert served[0][:2] == [f"MLflow:  http://127.0.0.1:{ports[0]}", f"Prefect: http://127.0.0.1:{ports[1]}"]


@pytest.mark.usefixtures("served")
def test_both_pages_answer(ports: tuple[int, int]) -> None:
    for port in ports:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=30) as page:
            assert b"<html" in page.read().lower()


@pytest.mark.usefixtures("served")
def test_nobody_else_on_the_network_reaches_them(ports: tuple[int, int]) -> None:
    sockets = Path("/proc/net/tcp").read_text().splitlines()[1:]
    listening = [line.split()[1] for line in sockets if line.split()[3] == "0A"]
    for port in ports:
        assert [place for place in listening if place.endswith(f":{port:04X}")] == [f"0100007F:{port:04X}"]


def test_a_taken_port_is_named(served: tuple[list[str], Path], ports: tuple[int, int]) -> None:
    command = [sys.executable, "-m", "flows", "ui", "--mlflow-port", str(ports[0])]
    environment = os.environ | {"PCD_HOME": str(served[1])}
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment, timeout=PATIENCE
    )
    assert done.returncode == 2
    assert f"port {ports[0]} is taken on 127.0.0.1; choose another with --mlflow-port" in done.stderr


def test_where_both_servers_are_others_nothing_is_served_and_nothing_waits(tmp_path: Path) -> None:
    environment = os.environ | {
        "PCD_HOME": str(tmp_path), "MLFLOW_TRACKING_URI": "http://mlflow.test", "PREFECT_API_URL": "http://prefect.test"
    }  # fmt: skip
    command = [sys.executable, "-m", "flows", "ui"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True, env=environment, timeout=PATIENCE
    )
    assert done.stdout.splitlines() == [
        "mlflow: on the server that MLFLOW_TRACKING_URI names", "prefect: on the server that PREFECT_API_URL names"
    ]  # fmt: skip
