"""What the tests of the evaluation share: a small shapes set, stage processes, and the smoke profile's protocol."""

import importlib.resources
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from tests.patience import PATIENCE

RUNTIME = {"device": "cpu", "threads": 1, "workers": 0, "log_every": 1, "checkpoint_seconds": 600}


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def new_spec() -> Callable[..., Path]:
    """Write the spec.json of a stage into its folder `out`, as flows.supervision.supervisor does."""

    def write(out: Path, settings: dict[str, Any], inputs: dict[str, Path] | None = None, **runtime: Any) -> Path:
        out.mkdir(parents=True, exist_ok=True)
        spec = {
            "stage": "test",
            "title": "test",
            "settings": settings,
            "inputs": {name: str(folder) for name, folder in (inputs or {}).items()},
            "out": str(out),
            "runtime": RUNTIME | runtime,
        }
        path = out / "spec.json"
        path.write_text(json.dumps(spec))
        return path

    return write


@pytest.fixture(scope="session")
def run_module() -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """`python -m MODULE SPEC` in a process of its own."""

    def run(module: str, spec: Path, **options: Any) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", module, str(spec)]
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False, **options)

    return run


@pytest.fixture(scope="session")
def draw_set(
    new_spec: Callable[..., Path], run_module: Callable[..., "subprocess.CompletedProcess[str]"]
) -> Callable[..., Path]:
    """Run the data stage on a shapes set in a process of its own, and return its folder."""

    def draw(folder: Path, threads: int = 1, **settings: Any) -> Path:
        data = {"kind": "shapes", "size": 64, "pool": 4, "train": 16, "val": 8, "seed": 0} | settings
        done = run_module("eval.prepare_data", new_spec(folder, {"data": data}, threads=threads))
        assert done.returncode == 0, done.stderr
        return folder

    return draw


@pytest.fixture(scope="session")
def shapes_set(draw_set: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """4 images in the pool, 16 in train and 8 in val, of 64 x 64 pixels."""
    return draw_set(tmp_path_factory.mktemp("shapes"))


@pytest.fixture(scope="session")
def smoke_protocol() -> dict[str, Any]:
    """The fine-tuning settings of flows/profiles/smoke.yaml."""
    profile = yaml.safe_load((importlib.resources.files("flows") / "profiles" / "smoke.yaml").read_text())
    protocol: dict[str, Any] = profile["protocols"]["smoke_fpn"]
    return protocol


@pytest.fixture
def own_images(tmp_path: Path) -> Path:
    """Three noise images, a.png of 40 x 30 pixels (width x height), b.png and c.png of 30 x 40."""
    folder = tmp_path / "images"
    folder.mkdir()
    random = np.random.default_rng(0)
    for name, width, height in (("a", 40, 30), ("b", 30, 40), ("c", 30, 40)):
        pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def own_coco() -> dict[str, Any]:
    """Faultless annotations of `own_images`: a polygon, a compressed and an uncompressed RLE."""
    common = {"iscrowd": 0, "area": 50.0}
    return {
        "images": [
            {"id": 1, "file_name": "a.png", "width": 40, "height": 30},
            {"id": 2, "file_name": "b.png", "width": 30, "height": 40},
            {"id": 3, "file_name": "c.png", "width": 30, "height": 40},
        ],
        "annotations": [
            {
                "id": 1,
                "image_id": 1,
                "category_id": 3,
                "bbox": [5, 6, 10, 5],
                "segmentation": [[5, 6, 15, 6, 15, 11, 5, 11]],
                **common,
            },
            {
                "id": 2,
                "image_id": 2,
                "category_id": 7,
                "bbox": [0, 0, 5, 10],
                "segmentation": {"size": [40, 30], "counts": [0, *(10, 30) * 4, 10, 1030]},
                **common,
            },
            {
                "id": 3,
                "image_id": 3,
                "category_id": 3,
                "bbox": [0, 0, 5, 10],
                "segmentation": {"size": [40, 30], "counts": "0:n00000000Xo0"},
                **common,
            },
        ],
        "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}],
    }
