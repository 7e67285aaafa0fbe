"""What the method's tests share: one thread, a tiny pool of images, stage folders, and tiny runs."""

import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image

from pcd.stage import Spec, read_spec
from pcd.teachers.registry import DEMO_CHECKPOINT

if TYPE_CHECKING:
    # Imported late below: it loads the whole training, which few of the tests need.
    from tests.pcd.training_runs import Finished

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def stage_environment() -> dict[str, str]:
    """For processes that are started from any folder: this project's packages, and no ranks."""
    kept = {k: v for k, v in os.environ.items() if k not in ("RANK", "LOCAL_RANK", "WORLD_SIZE")}
    return kept | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="session")
def image_pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 smooth random images of 48 pixels."""
    folder = tmp_path_factory.mktemp("pool")
    random = np.random.default_rng(0)
    for i in range(24):
        coarse = Image.fromarray(random.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        coarse.resize((48, 48)).save(folder / f"{i:02}.png")
    return folder


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory, image_pool: Path) -> Path:
    """What a data stage leaves for the pre-training."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "data.json").write_text(json.dumps({"pool": str(image_pool)}))
    return folder


@pytest.fixture(scope="session")
def teacher_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the teacher stage leaves of the demo's teacher."""
    folder = tmp_path_factory.mktemp("teacher")
    shutil.copy(DEMO_CHECKPOINT, folder)
    (folder / "result.json").write_text(json.dumps({"file": DEMO_CHECKPOINT.name}))
    return folder


@pytest.fixture
def write_spec(tmp_path: Path) -> Callable[..., Path]:
    """Writes a spec.json as the supervisor does, with `out` beside it; keywords that are no part of it are runtime."""

    def write(
        settings: dict[str, Any], inputs: dict[str, Path] | None = None, name: str = "out", **runtime: Any
    ) -> Path:
        path = tmp_path / f"{name}.json"
        spec = {
            "stage": "test",
            "title": "test",
            "settings": settings,
            "inputs": {k: str(v) for k, v in (inputs or {}).items()},
            "out": str(tmp_path / name),
            "runtime": {
                "device": "cpu", "threads": 1, "workers": 0, "log_every": 1, "checkpoint_seconds": 3600, **runtime
            },
        }  # fmt: skip
        path.write_text(json.dumps(spec))
        return path

    return write


@pytest.fixture
def make_spec(write_spec: Callable[..., Path]) -> Callable[..., Spec]:
    """The same, read back, and its `out` made: for calling a stage's function in this process."""

    def make(*args: Any, **keywords: Any) -> Spec:
        spec = read_spec(write_spec(*args, **keywords))
        spec.out.mkdir(exist_ok=True)
        return spec

    return make


@pytest.fixture(scope="session")
def inputs(teacher_folder: Path, data_folder: Path) -> dict[str, Path]:
    """What the pre-training reads."""
    return {"teacher": teacher_folder, "data": data_folder}


@pytest.fixture
def pretraining(make_spec: Callable[..., Spec], inputs: dict[str, Path]) -> Callable[..., Spec]:
    """The spec of a tiny run; keywords are settings that differ."""
    from tests.pcd.training_runs import tiny_settings

    def make(name: str = "out", runtime: Mapping[str, Any] | None = None, **settings: Any) -> Spec:
        return make_spec(tiny_settings(**settings), dict(inputs), name, **(runtime or {}))

    return make


@pytest.fixture
def command(write_spec: Callable[..., Path], inputs: dict[str, Path]) -> Callable[..., list[str]]:
    """The command of a tiny run; keywords are settings that differ."""
    from tests.pcd.training_runs import tiny_settings

    def make(processes: int = 1, **settings: Any) -> list[str]:
        ranks = (
            ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
        )
        return [sys.executable, *ranks, "-m", "pcd.train", str(write_spec(tiny_settings(**settings), inputs))]

    return make


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, inputs: dict[str, Path]) -> "Finished":
    """A run with the tiny settings: where it went, and what it returned. For reading only."""
    from pcd.train import pretrain
    from tests.pcd.training_runs import tiny_spec

    spec = tiny_spec(tmp_path_factory.mktemp("finished"), inputs)
    return spec.out, pretrain(spec)
