import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pcd.errors import PCDError
from pcd.stage import Spec, Stopped
from pcd.teachers import load_teacher
from pcd.teachers.train_demo import momentum_contrast_loss, train_demo_teacher

TINY: dict[str, Any] = {"epochs": 1, "batch": 8, "views": {"size": 32}, "optimizer": {"warmup_epochs": 0}}
"""Three steps over the 24 images of the pool."""


@pytest.fixture
def training(make_spec: Callable[..., Spec], data_folder: Path) -> Callable[..., Spec]:
    def make(**settings: Any) -> Spec:
        return make_spec({"demo_teacher": TINY | settings, "data": {"kind": "test"}}, {"data": data_folder})

    return make


@pytest.mark.parametrize("tau", [0.1, 0.2, 1.0])
def test_orthogonal_pairs_give_the_closed_form(tau: float) -> None:
    vectors = 3 * torch.eye(5)
    expected = 2 * tau * (math.log(math.exp(1 / tau) + 4) - 1 / tau)
    assert momentum_contrast_loss(vectors, 7 * vectors, tau).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("batch", [1, 2, 30])
def test_equal_vectors_give_the_log_of_the_batch(batch: int) -> None:
    vectors = torch.randn(8).expand(batch, 8)
    assert momentum_contrast_loss(vectors, vectors, 0.2).item() == pytest.approx(0.4 * math.log(batch), abs=1e-5)


def test_swapped_keys_raise_the_loss() -> None:
    vectors = torch.randn(6, 16)
    assert (
        momentum_contrast_loss(vectors, vectors.roll(1, 0), 0.2) > momentum_contrast_loss(vectors, vectors, 0.2) + 0.1
    )


def test_loss_under_autocast_is_the_fp32_loss() -> None:
    queries, keys = torch.randn(6, 16), torch.randn(6, 16)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = momentum_contrast_loss(queries, keys, 0.2)
    torch.testing.assert_close(mixed, momentum_contrast_loss(queries, keys, 0.2), rtol=0.02, atol=0.02)


def test_trained_checkpoint_loads_as_the_demo_teacher(training: Callable[..., Spec]) -> None:
    spec = training()
    train_demo_teacher(spec)
    teacher = load_teacher("demo", spec.out / "demo_mocov3.pth.tar")
    assert teacher(torch.randn(2, 3, 64, 64)).isfinite().all()


def test_recipe_and_result_name_the_files_hash_and_size(training: Callable[..., Spec]) -> None:
    spec = training()
    result = train_demo_teacher(spec)
    recipe = json.loads((spec.out / "demo_mocov3.json").read_text())
    written = (spec.out / "demo_mocov3.pth.tar").read_bytes()
    facts = (hashlib.sha256(written).hexdigest(), len(written))
    assert (recipe["sha256"], recipe["size_bytes"]) == (result["sha256"], result["size_bytes"]) == facts


def test_training_leaves_the_checkpoint_and_its_recipe(training: Callable[..., Spec]) -> None:
    spec = training()
    train_demo_teacher(spec)
    assert {path.name for path in spec.out.iterdir()} >= {"demo_mocov3.json", "demo_mocov3.pth.tar", "metrics.jsonl"}


def test_training_stopped_behind_its_last_step_still_publishes(training: Callable[..., Spec]) -> None:
    spec = training(batch=24)  # one step in all
    spec.stop_requested = True
    try:
        train_demo_teacher(spec)
    except Stopped:
        spec.stop_requested = False
        train_demo_teacher(spec)
    assert (spec.out / "demo_mocov3.pth.tar").exists()


def test_pool_smaller_than_one_batch_is_the_users_error(training: Callable[..., Spec]) -> None:
    with pytest.raises(PCDError, match="24 images"):
        train_demo_teacher(training(batch=25))
