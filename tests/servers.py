"""Real servers on loopback, which tests may kill and start again."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from tests.patience import PATIENCE


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(slots=True)
class Server(ABC):
    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    @abstractmethod
    def command(self) -> list[str]:
        """Behind `python -m`."""

    @property
    @abstractmethod
    def health(self) -> str:
        """An address that answers once the server does."""

    @property
    def environment(self) -> dict[str, str]:
        return dict(os.environ)

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *self.command], env=self.environment, stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + PATIENCE
        while not self._answers():
            assert self.process.poll() is None, (self.folder / "server.log").read_text()[-2000:]
            assert time.monotonic() < deadline, "the server does not answer"
            time.sleep(0.2)

    def kill(self) -> None:
        if self.process is not None:
            try:
                os.killpg(self.process.pid, 9)
            except ProcessLookupError:
                pass
            self.process.wait()

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(self.health, timeout=5):
                return True
        except OSError:
            return False


class PrefectServer(Server):
    @property
    def api(self) -> str:
        return f"http://127.0.0.1:{self.port}/api"

    @property
    def health(self) -> str:
        return f"{self.api}/health"

    @property
    def command(self) -> list[str]:
        return ["prefect", "server", "start", "--host", "127.0.0.1", "--port", str(self.port)]

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {
            "PREFECT_HOME": str(self.folder),
            "PREFECT_API_URL": self.api,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        }


class MlflowServer(Server):
    """Its database is <folder>/mlflow.db."""

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def health(self) -> str:
        return f"{self.address}/health"

    @property
    def command(self) -> list[str]:
        places = ["--backend-store-uri", f"sqlite:///{self.folder / 'mlflow.db'}"]
        places += ["--artifacts-destination", (self.folder / "artifacts").as_uri()]
        return ["mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1", *places]

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
