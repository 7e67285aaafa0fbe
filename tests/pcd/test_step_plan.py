import pytest

from pcd.errors import PCDError
from pcd.settings import LossSettings, OptimizerSettings, PretrainSettings
from pcd.step_plan import plan_steps

PAPER = PretrainSettings()
IMAGENET = 1_281_167


def _settings(batch: int, accumulation: int = 1) -> PretrainSettings:
    return PretrainSettings(global_batch=batch, accumulation=accumulation, loss=LossSettings(negatives=4096))


def test_paper_run_in_steps() -> None:
    plan = plan_steps(PAPER, IMAGENET, ranks=8)
    assert (plan.per_epoch, plan.total, plan.warmup) == (1251, 125_100, 12_510)


@pytest.mark.parametrize("ranks", [1, 2, 8, 64, 512])
def test_learning_rate_follows_the_global_batch_whatever_the_number_of_ranks(ranks: int) -> None:
    # The released code divides the per-GPU batch by 256 as integers, which is 0 on 8 and more GPUs.
    assert plan_steps(PAPER, IMAGENET, ranks).peak_learning_rate == 1.0 * 1024 / 256


@pytest.mark.parametrize("ranks", [1, 2, 8, 64, 512])
def test_the_number_of_ranks_changes_no_plan(ranks: int) -> None:
    # The released code builds the loader before it divides, so that its true batch is 1024 times the GPUs.
    assert plan_steps(PAPER, IMAGENET, ranks) == plan_steps(PAPER, IMAGENET, 1)


@pytest.mark.parametrize(("ranks", "accumulation"), [(3, 1), (2, 32), (8, 16)])
def test_batch_that_does_not_divide_is_refused(ranks: int, accumulation: int) -> None:
    with pytest.raises(PCDError, match="global batch of 48 does not divide among"):
        plan_steps(_settings(48, accumulation=accumulation if 48 % accumulation == 0 else 1), 1000, ranks * 5)


def test_pool_smaller_than_a_batch_is_refused() -> None:
    with pytest.raises(PCDError, match="the pool has 63 images, fewer than one global batch of 64"):
        plan_steps(_settings(64), 63, 1)


def test_parts_of_one_image_are_refused() -> None:
    with pytest.raises(PCDError, match="BatchNorm needs 2 images at once"):
        plan_steps(_settings(4, accumulation=4), 100, 1)


def test_run_without_a_step_is_refused() -> None:
    settings = PretrainSettings(epochs=0.01, optimizer=OptimizerSettings(warmup_epochs=0))
    with pytest.raises(PCDError, match="no whole step"):
        plan_steps(settings, 2000, 1)
