"""Logistic regression against SciPy's minimum, and the draws it learns from."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import minimize

from eval.probes.frozen import FrozenFeatures
from eval.probes.low_shot import draw_share, logistic_regression, low_shot_probe
from eval.probes.settings import LowShotSettings
from pcd.errors import PCDError
from pcd.stage import Spec, Stopped
from tests.eval.probes.conftest import lines

MakeSpec = Callable[..., Spec]


@pytest.mark.parametrize("penalty", [0.02, 1.0])
def test_it_finds_the_minimum_of_its_definition(frozen: FrozenFeatures, penalty: float) -> None:
    x, y = F.normalize(frozen.train, dim=1).double().numpy(), frozen.train_labels.numpy()

    def objective(flat: NDArray[Any]) -> float:
        w = flat.reshape(7, 8)
        scores = x @ w.T
        losses = np.log(np.exp(scores).sum(axis=1)) - scores[range(len(y)), y]
        return float(losses.sum() + penalty / 2 * (w**2).sum())

    least = minimize(objective, np.zeros(56), method="BFGS", options={"maxiter": 1000}).x.reshape(7, 8)
    found = logistic_regression(F.normalize(frozen.train, dim=1), frozen.train_labels, 7, penalty, 300)
    np.testing.assert_allclose(found.numpy(), least, atol=0.01 * np.abs(least).max())


@given(sizes=st.lists(st.integers(1, 40), min_size=2, max_size=6), share=st.floats(0.01, 1), seed=st.integers(0, 99))
def test_a_draw_has_as_many_images_of_each_class(sizes: list[int], share: float, seed: int) -> None:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    drawn = draw_share(labels, share, seed, 0)
    wanted = max(1, round(share * sum(sizes) / len(sizes)))
    assert np.bincount(labels[drawn]).tolist() == [min(size, wanted) for size in sizes]
    assert len(set(drawn.tolist())) == len(drawn)


def test_draws_follow_from_seed_and_trial() -> None:
    labels = np.arange(10).repeat(100)
    draws = {place: draw_share(labels, 0.1, *place).tolist() for place in ((0, 0), (0, 1), (1, 0))}
    assert len({tuple(draw) for draw in draws.values()}) == 3
    assert draw_share(labels, 0.1, 0, 1).tolist() == draws[0, 1]


def test_more_images_of_each_class_help(make_spec: MakeSpec, frozen: FrozenFeatures) -> None:
    few, many = (
        low_shot_probe(make_spec({}), LowShotSettings(share=share, trials=3, penalty=0.1), frozen, 0)
        for share in (0.1, 1.0)
        if not make_spec({}).out.joinpath("checkpoint.pt").unlink(missing_ok=True)
    )
    assert [trial["images"] for trial in few["trials"]] == [7, 7, 7]
    assert few["metrics"]["top1"] + 5 < many["metrics"]["top1"]
    assert few["metrics"]["top1"] == pytest.approx(np.mean([trial["top1"] for trial in few["trials"]]))
    assert few["top1_std"] == pytest.approx(np.std([trial["top1"] for trial in few["trials"]], ddof=1))
    assert many["top1_std"] == 0  # all of the images each time


def test_a_stopped_run_keeps_its_trials_and_ends_as_an_undisturbed_one(
    make_spec: MakeSpec, frozen: FrozenFeatures
) -> None:
    settings = LowShotSettings(share=0.2, trials=3)
    whole = make_spec({})
    expected, undisturbed = low_shot_probe(whole, settings, frozen, 1), lines(whole)
    for path in whole.out.glob("*"):
        path.unlink()

    spec = make_spec({})
    log = spec.metrics.log
    spec.metrics.log = lambda *a: (log(*a), spec.request_stop())  # type: ignore[method-assign,assign]
    with pytest.raises(Stopped):
        low_shot_probe(spec, settings, frozen, 1)
    assert len(lines(spec)) == 1
    again = make_spec({})
    assert low_shot_probe(again, settings, frozen, 1) == expected
    assert lines(again) == undisturbed


def test_features_that_are_not_finite_say_so() -> None:
    with pytest.raises(PCDError, match="loss is not finite"):
        logistic_regression(torch.full((4, 2), float("inf")), torch.tensor([0, 1, 0, 1]), 2, 0.1, 10)
