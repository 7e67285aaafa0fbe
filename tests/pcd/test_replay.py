import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from pcd.errors import PCDError
from pcd.finite_guard import NotFiniteError
from pcd.replay import replay
from pcd.train import pretrain
from tests.pcd.training_runs import tiny_spec

SETTINGS: dict[str, Any] = {
    "epochs": 1,
    "global_batch": 8,
    "views": {"size": 32},
    "loss": {"negatives": 60},
    "optimizer": {"name": "adamw", "learning_rate": 1e30, "warmup_epochs": 0},
}


@pytest.fixture(scope="module", params=["fp32", pytest.param("bf16", marks=pytest.mark.slow)])
def left_behind(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, inputs: dict[str, Path]
) -> Path:
    """The file that a run left whose second step was not finite."""
    spec = tiny_spec(tmp_path_factory.mktemp("diverged"), inputs)
    spec.settings["pretrain"] = SETTINGS | {"precision": request.param, "accumulation": 2}
    with pytest.raises(NotFiniteError):
        pretrain(spec)
    (path,) = spec.out.glob("nonfinite*.pt")
    return path


@pytest.fixture
def captured(left_behind: Path, tmp_path: Path) -> Path:
    """A copy of it, to be tampered with."""
    return Path(shutil.copy(left_behind, tmp_path))


def test_replay_is_not_finite_either_and_says_where_it_begins(captured: Path) -> None:
    again = replay(captured)
    assert again.step == 1
    assert not torch.isfinite(torch.tensor(again.loss + again.gradient_norm))
    assert again.first_module is not None
    assert again.first_module.startswith("student.backbone.")


def test_replay_names_the_tensors_that_were_broken_before_the_step(captured: Path) -> None:
    saved = torch.load(captured, weights_only=True)
    saved["student"]["backbone.layer1.0.conv1.weight"][0, 0, 0, 0] = float("nan")
    torch.save(saved, captured)
    assert "backbone.layer1.0.conv1.weight" in replay(captured).weights


def test_sound_weights_replay_to_a_finite_step(captured: Path) -> None:
    saved = torch.load(captured, weights_only=True)
    for name, tensor in saved["student"].items():
        if tensor.is_floating_point():
            tensor.copy_(torch.ones_like(tensor) if "running_var" in name else torch.randn_like(tensor) * 0.05)
    torch.save(saved, captured)
    again = replay(captured, "fp32")
    assert torch.isfinite(torch.tensor([again.loss, again.gradient_norm])).all()
    assert (again.first_module, again.weights, again.gradients) == (None, (), ())


def test_another_ranks_capture_takes_the_weights_from_the_first_ones(captured: Path) -> None:
    saved = torch.load(captured, weights_only=True)
    other = captured.with_name("nonfinite-step1-rank1.pt")
    torch.save({name: value for name, value in saved.items() if name not in ("student", "objective")}, other)
    assert replay(other).first_module == replay(captured).first_module


def test_another_ranks_capture_without_the_first_ones_is_the_users_error(captured: Path) -> None:
    saved = torch.load(captured, weights_only=True)
    other = captured.rename(captured.with_name("nonfinite-step1-rank1.pt"))
    torch.save({name: value for name, value in saved.items() if name not in ("student", "objective")}, other)
    with pytest.raises(PCDError, match=r"rank0\.pt is gone"):
        replay(other)


def test_another_number_format_can_be_tried(captured: Path) -> None:
    assert replay(captured, "fp16").precision == "fp16"


def test_what_is_no_capture_is_the_users_error(tmp_path: Path) -> None:
    with pytest.raises(PCDError, match="is no captured step"):
        replay(tmp_path / "nothing.pt")
