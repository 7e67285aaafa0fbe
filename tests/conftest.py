"""Shared by all tests: nothing leaves this machine, and nothing is written outside a temporary folder."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

from tests.patience import PATIENCE

# Set before any test imports the libraries that read them.
os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["DO_NOT_TRACK"] = "1"

# A suite started in the background inherits an ignored SIGINT, and tests of Ctrl-C would wait for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).parent.parent


def _keep_to_our_cores() -> None:
    """Each of pytest-xdist's workers, and all that it starts, has cores of its own: threads that share one only spin.

    Before torch is imported, which counts its threads then.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    cores = sorted(os.sched_getaffinity(0))
    if 1 < workers <= len(cores):
        os.sched_setaffinity(0, cores[int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw")) :: workers])


_keep_to_our_cores()

settings.register_profile("pcd", deadline=None, derandomize=True, database=None)
settings.load_profile("pcd")

Pcd = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session", autouse=True)
def _own_device_locks(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tests wait for no run of this machine's, and none waits for them."""
    os.environ["PCD_LOCKS"] = str(tmp_path_factory.mktemp("locks", numbered=True))


@pytest.fixture
def pcd_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty PCD_HOME, and no server of the user's own."""
    for name in ("MLFLOW_TRACKING_URI", "PREFECT_API_URL", "PREFECT_HOME", "PCD_STORE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PCD_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def pcd(pcd_home: Path) -> Pcd:
    """Runs the real `pcd` command in a process of its own."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "flows", *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False)

    return run
