"""The linear probe, against the schedule of MoCo's main_lincls.py written out by hand."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from eval.probes import linear
from eval.probes.frozen import FrozenFeatures
from eval.probes.linear import linear_probe
from eval.probes.settings import LinearSettings
from pcd.errors import PCDError
from pcd.image_sources import shuffled
from pcd.stage import Spec, Stopped
from tests.eval.probes.conftest import lines

SHORT = LinearSettings(epochs=5, batch=16, learning_rate=0.5, weight_decay=0.01)
MakeSpec = Callable[..., Spec]


def by_hand(settings: LinearSettings, frozen: FrozenFeatures, seed: int) -> list[float]:
    """The mean loss of each epoch; gradient, momentum and decay written out, in double precision."""
    torch.manual_seed(seed)
    layer = torch.nn.Linear(8, 7)
    x, y = frozen.train.double().numpy(), frozen.train_labels.numpy()
    w: NDArray[Any] = torch.nn.init.normal_(layer.weight.detach(), std=0.01).double().numpy()
    b: NDArray[Any] = np.zeros(7)
    dw, db, losses = np.zeros_like(w), np.zeros_like(b), []
    for epoch in range(settings.epochs):
        rate = settings.learning_rate * {0: 1, 1: 1, 2: 1, 3: 0.1, 4: 0.01}[epoch]  # 60 and 80 of 100
        order, total = shuffled(len(x), epoch, seed), 0.0
        for first in range(0, len(x), settings.batch):
            chosen = order[first : first + settings.batch]
            scores = x[chosen] @ w.T + b
            p = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
            total -= np.log(p[range(len(chosen)), y[chosen]]).sum()
            p[range(len(chosen)), y[chosen]] -= 1
            dw = settings.momentum * dw + p.T @ x[chosen] / len(chosen) + settings.weight_decay * w
            db = settings.momentum * db + p.mean(axis=0) + settings.weight_decay * b
            w, b = w - rate * dw, b - rate * db
        losses.append(total / len(x))
    return losses


def test_every_step_is_that_of_the_schedule(make_spec: MakeSpec, frozen: FrozenFeatures) -> None:
    spec = make_spec({})
    linear_probe(spec, SHORT, frozen, seed=2)
    assert [line["loss"] for line in lines(spec)] == pytest.approx(by_hand(SHORT, frozen, 2), rel=1e-4)
    assert [line["learning_rate"] for line in lines(spec)] == pytest.approx([0.5, 0.5, 0.5, 0.05, 0.005])
    assert [(line["step"], line["total"]) for line in lines(spec)] == [(5 * epoch, 25) for epoch in range(1, 6)]


def test_mocos_schedule_is_the_default() -> None:
    settings = LinearSettings()
    rates = [linear._learning_rate(settings, epoch) for epoch in (0, 59, 60, 79, 80, 99)]
    assert rates == pytest.approx([30, 30, 3, 3, 0.3, 0.3])
    assert (settings.epochs, settings.batch, settings.momentum, settings.weight_decay) == (100, 256, 0.9, 0)


def test_classes_that_lie_apart_are_told_apart(make_spec: MakeSpec, frozen: FrozenFeatures) -> None:
    spec = make_spec({})
    found = linear_probe(spec, SHORT, frozen, seed=0)
    assert found["metrics"]["top1"] > 80
    assert found["train_metrics"]["top5"] > 99
    assert found["metrics"] == {name: lines(spec)[-1][name] for name in ("top1", "top5")}


@pytest.mark.parametrize("asked_in", ["epoch 3", "the middle of epoch 3"])
def test_a_stopped_run_ends_as_an_undisturbed_one(
    make_spec: MakeSpec, frozen: FrozenFeatures, asked_in: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make_spec({})
    expected, undisturbed = linear_probe(whole, SHORT, frozen, seed=0), lines(whole)
    whole.metrics.path.unlink()

    spec = make_spec({})
    with monkeypatch.context() as patch:
        if asked_in == "epoch 3":  # at its very end, behind the record
            record = linear._record
            patch.setattr(linear, "_record", lambda *a: (record(*a), a[4][2] == 2 and spec.request_stop()))
        else:
            patch.setattr(
                linear,
                "shuffled",
                lambda n, epoch, seed: (epoch == 2 and spec.request_stop(), shuffled(n, epoch, seed))[1],
            )
        with pytest.raises(Stopped):
            linear_probe(spec, SHORT, frozen, seed=0)
    again = make_spec({})
    assert linear_probe(again, SHORT, frozen, seed=0) == expected
    assert lines(again) == undisturbed


def test_a_probe_that_diverges_says_what_to_do(make_spec: MakeSpec, frozen: FrozenFeatures) -> None:
    settings = SHORT.model_copy(update={"learning_rate": 1e38})
    with pytest.raises(PCDError, match=r"linear probe diverged in epoch 1 .*lower its learning_rate"):
        linear_probe(make_spec({}), settings, frozen, seed=0)


def test_a_checkpoint_of_other_settings_is_refused(make_spec: MakeSpec, frozen: FrozenFeatures) -> None:
    linear_probe(make_spec({"probe": 1}, checkpoint_seconds=0), SHORT, frozen, seed=0)
    with pytest.raises(PCDError, match="made with other settings"):
        linear_probe(make_spec({"probe": 2}), SHORT, frozen, seed=0)
