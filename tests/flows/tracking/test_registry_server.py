"""The model registry of a real MLflow server, whose artifacts go by HTTP."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import mlflow.pytorch
import pytest
import torch
from mlflow import MlflowClient

from flows.tracking.registry import BEST
from tests.flows.tracking.tracked_runs import Finish, publish
from tests.patience import PATIENCE

pytestmark = [
    pytest.mark.filterwarnings(
        # torch.export with copyreg, and MLflow's connections: theirs.
        "ignore::ResourceWarning",
        "ignore::DeprecationWarning",
        "ignore::FutureWarning",
        "ignore:.*Any type hint is inferred as AnyType:UserWarning",
    ),
    pytest.mark.slow,
]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The server's address, in place of a database's."""
    folder = tmp_path_factory.mktemp("server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
    command += ["--artifacts-destination", (folder / "artifacts").as_uri()]
    with (folder / "log.txt").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, start_new_session=True)
    try:
        _wait_for(server, port, folder / "log.txt")
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, 15)
        server.wait(PATIENCE)


def _wait_for(server: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert server.poll() is None, log.read_text()
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_a_student_is_registered_and_loaded_over_http(
    finish: Finish, client: MlflowClient, monkeypatch: pytest.MonkeyPatch, database: str, tmp_path: Path
) -> None:
    journal = finish({"pcd.seed0": 20.0, "pcd.seed1": 25.0})
    for _ in range(2):
        publish(journal)
    name = f"{journal.run.name}_pcd"
    (version,) = client.search_model_versions(f"name = '{name}'")
    assert (version.tags["pcd.seed"], client.get_model_version_by_alias(name, BEST).version) == ("1", version.version)

    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    model = mlflow.pytorch.load_model(f"models:/{name}@{BEST}")
    assert model(torch.rand(2, 3, 96, 64)).shape == (2, 512, 3, 2)
    place = mlflow.artifacts.download_artifacts(f"models:/{name}@{BEST}", dst_path=str(tmp_path / "m"))
    files = {path.name for path in (Path(place) / "extra_files").iterdir()}
    assert files == {"backbone.safetensors", "backbone_detectron2.pth", "MODEL_CARD.md"}
