"""BatchNorm's statistics behind the training."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from eval.detectron.precise_bn import count_statistics_anew
from eval.finetune_settings import FinetuneSettings
from pcd.stage import Stopped, read_spec

Count = Callable[..., Any]


@pytest.fixture(scope="module")
def count(
    new_config: Callable[..., Any],
    new_detector: Callable[..., Any],
    new_spec: Callable[..., Path],
    settings: FinetuneSettings,
    train_name: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Count:
    """A fresh detector whose statistics were counted over some batches."""

    def run(batches: int, stop: bool = False) -> Any:
        cfg = new_config()
        detector = new_detector(cfg)
        spec = read_spec(new_spec(tmp_path_factory.mktemp("precise"), {}))
        spec.stop_requested = stop
        changed = settings.model_copy(update={"precise_bn_iterations": batches})
        count_statistics_anew(cfg, detector, changed, train_name, 0, spec)
        return detector

    return run


@pytest.fixture(scope="module")
def counted(count: Count) -> Any:
    return count(2)


def test_the_statistics_are_those_of_the_batches_and_not_a_running_mean(
    counted: Any, new_config: Callable[..., Any], settings: FinetuneSettings, train_name: str
) -> None:
    from eval.detectron.data import training_loader

    stem, found = counted.backbone.bottom_up.stem.conv1, []
    cfg = new_config()
    batches = iter(training_loader(cfg, train_name, 0, 0, settings.iterations))
    for _ in range(2):
        images = counted.preprocess_image(next(batches)).tensor
        with torch.no_grad():
            found.append(torch.nn.functional.conv2d(images, stem.weight, stride=2, padding=3))  # (B, 64, H, W)
    both = torch.cat([x.flatten(2).transpose(0, 1).flatten(1) for x in found], dim=1)  # (64, pixels of all)
    torch.testing.assert_close(stem.norm.running_mean, both.mean(1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(stem.norm.running_var, both.var(1, unbiased=False), rtol=1e-3, atol=1e-4)


def test_no_weight_moves(counted: Any, new_config: Callable[..., Any], new_detector: Callable[..., Any]) -> None:
    before = dict(new_detector(new_config()).named_parameters())
    assert [n for n, parameter in counted.named_parameters() if not torch.equal(parameter, before[n])] == []


def test_one_seed_gives_one_count(count: Count, counted: Any) -> None:
    again = count(2).state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in counted.state_dict().items())


def test_none_wanted_leaves_the_statistics_of_the_training(count: Count) -> None:
    assert count(0).backbone.bottom_up.stem.conv1.norm.running_mean.abs().max() == 0


def test_a_request_to_stop_is_followed(count: Count) -> None:
    with pytest.raises(Stopped):
        count(2, stop=True)
