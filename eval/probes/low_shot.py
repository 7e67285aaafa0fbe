"""Logistic regression on a few frozen features of each class."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from eval.probes.accuracy import accuracies
from eval.probes.frozen import FrozenFeatures
from eval.probes.settings import LowShotSettings
from pcd.checkpoint import save_checkpoint
from pcd.errors import PCDError
from pcd.resume import load_own_checkpoint
from pcd.stage import Spec, Stopped

__all__ = ["draw_share", "logistic_regression", "low_shot_probe"]


def low_shot_probe(spec: Spec, settings: LowShotSettings, frozen: FrozenFeatures, seed: int) -> dict[str, Any]:
    """One classifier for each draw of the share, from the last trial that a checkpoint has.

    The draws depend on seed, trial and labels alone: all arms learn from the same images.

    Returns:
        `metrics`, the means over the trials; `top1_std` over them (of the sample; None of one trial), and each of
        `trials` with its accuracies and the number of its `images`.

    Raises:
        PCDError: the loss is not finite, or the checkpoint was made with other settings.
        Stopped: when asked to stop; trials that are done are kept.
    """
    state = load_own_checkpoint(spec)
    trials: list[dict[str, Any]] = state["trials"] if state else []
    labels = frozen.train_labels.cpu().numpy()
    for trial in range(len(trials), settings.trials):
        chosen = torch.from_numpy(draw_share(labels, settings.share, seed, trial)).to(frozen.train.device)
        centre = frozen.train[chosen].mean(dim=0)  # (C,)

        weight = logistic_regression(
            _prepared(frozen.train[chosen], centre), frozen.train_labels[chosen], len(frozen.classes),
            settings.penalty, settings.iterations, lambda: _stop_if_asked(spec),
        )  # fmt: skip
        found = accuracies(_Classifier(weight, centre), frozen.val, frozen.val_labels)
        trials.append({**found, "images": len(chosen)})
        figures = {name: value for name, value in found.items() if value is not None}
        spec.metrics.log(trial + 1, settings.trials, figures)
        save_checkpoint(spec.out / "checkpoint.pt", {"step": trial + 1, "trials": trials, "settings": spec.settings})
    top1 = [trial["top1"] for trial in trials]
    top5 = [trial["top5"] for trial in trials if trial["top5"] is not None]
    return {
        "metrics": {"top1": mean(top1), "top5": mean(top5) if top5 else None},
        "top1_std": stdev(top1) if len(top1) > 1 else None,
        "trials": trials,
    }


def draw_share(labels: NDArray[np.int64], share: float, seed: int, trial: int) -> NDArray[np.int64]:
    """Places, in their order, of as many images of each class: the share of an average class, one at least.

    Of a class that has fewer, all.

    Args:
        labels: (N,), integers from 0.
    """
    random = np.random.default_rng([seed, trial])
    classes = np.unique(labels)
    wanted = max(1, round(share * len(labels) / len(classes)))
    drawn = [random.permutation(np.flatnonzero(labels == one))[:wanted] for one in classes]
    return np.sort(np.concatenate(drawn))


def logistic_regression(
    features: Tensor, labels: Tensor, classes: int, penalty: float, iterations: int,
    on_evaluation: Callable[[], None] = lambda: None,
) -> Tensor:  # fmt: skip
    """The W that minimises the sum over images of the cross-entropy of W x, plus penalty/2 · |W|²; no intercept.

    A convex problem, from W = 0 by L-BFGS: nothing of it is random.

    Args:
        features: (N, C).
        labels: (N,), integers below `classes`.
        on_evaluation: called whenever the loss is evaluated; may raise.

    Returns:
        (classes, C).

    Raises:
        PCDError: the loss is not finite.
    """
    weight = torch.zeros(classes, features.shape[1], device=features.device, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight], max_iter=iterations, history_size=20, line_search_fn="strong_wolfe")

    def evaluate() -> Tensor:
        on_evaluation()
        optimizer.zero_grad()
        loss = F.cross_entropy(features @ weight.T, labels) + penalty / (2 * len(features)) * weight.square().sum()
        loss.backward()
        if not torch.isfinite(loss):
            raise PCDError("the logistic regression's loss is not finite; raise the protocol's penalty")
        return loss

    optimizer.step(evaluate)
    return weight.detach()


def _prepared(features: Tensor, centre: Tensor) -> Tensor:
    return F.normalize(features - centre, dim=1)


@dataclass(frozen=True, slots=True)
class _Classifier:
    weight: Tensor
    centre: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        return _prepared(features, self.centre) @ self.weight.T  # (B, classes)


def _stop_if_asked(spec: Spec) -> None:
    if spec.stop_requested:
        raise Stopped
