"""A linear classifier on frozen features, trained by the schedule of MoCo's linear evaluation."""

import time
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eval.probes.accuracy import accuracies
from eval.probes.frozen import FrozenFeatures
from eval.probes.settings import LinearSettings
from pcd.checkpoint import save_checkpoint
from pcd.errors import PCDError
from pcd.image_sources import shuffled
from pcd.optim import set_learning_rate
from pcd.resume import load_own_checkpoint
from pcd.stage import Spec, Stopped

__all__ = ["linear_probe"]


def linear_probe(spec: Spec, settings: LinearSettings, frozen: FrozenFeatures, seed: int) -> dict[str, Any]:
    """Train, from the last checkpoint if there is one; behind every epoch the accuracy on the test images is recorded.

    The classifier starts as in MoCo's main_lincls.py, with weights of deviation 0.01 and no bias; the order of an
    epoch's features depends on (seed, epoch) alone.

    Returns:
        `metrics` and `train_metrics` of the last epoch (see eval.probes.accuracy), and the number of `steps`.

    Raises:
        PCDError: the loss is not finite, or the checkpoint was made with other settings.
        Stopped: behind a checkpoint, when asked to stop.
    """
    images, device = len(frozen.train), frozen.train.device
    classifier = _new_classifier(frozen, seed)
    optimizer = torch.optim.SGD(
        classifier.parameters(), settings.learning_rate, settings.momentum, weight_decay=settings.weight_decay
    )
    per_epoch = -(-images // settings.batch)  # the last batch of an epoch may be short
    total = settings.epochs * per_epoch
    first, loss_sum = _resume(spec, classifier, optimizer, device)
    saved_at, batches = time.monotonic(), tuple[Tensor, ...]()
    for step in range(first, total):
        epoch, place = divmod(step, per_epoch)
        if place == 0 or step == first:
            batches = torch.from_numpy(shuffled(images, epoch, seed)).to(device).split(settings.batch)
            set_learning_rate(optimizer, _learning_rate(settings, epoch))
        batch = batches[place]
        loss = F.cross_entropy(classifier(frozen.train[batch]), frozen.train_labels[batch])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        loss_sum += loss.detach() * len(batch)

        done = step + 1
        if done % per_epoch == 0:
            _record(spec, settings, classifier, frozen, (done, total, epoch), float(loss_sum) / images)
            loss_sum.zero_()
        if spec.stop_requested or time.monotonic() - saved_at > spec.runtime["checkpoint_seconds"]:
            _save(spec, classifier, optimizer, done, loss_sum)
            saved_at = time.monotonic()
        if spec.stop_requested:
            raise Stopped
    return {
        "metrics": accuracies(classifier, frozen.val, frozen.val_labels),
        "train_metrics": accuracies(classifier, frozen.train, frozen.train_labels),
        "steps": total,
    }


def _new_classifier(frozen: FrozenFeatures, seed: int) -> nn.Linear:
    torch.manual_seed(seed)
    classifier = nn.Linear(frozen.train.shape[1], len(frozen.classes))
    nn.init.normal_(classifier.weight, std=0.01)
    nn.init.zeros_(classifier.bias)
    return classifier.to(frozen.train.device)


def _learning_rate(settings: LinearSettings, epoch: int) -> float:
    return settings.learning_rate * 0.1 ** sum(epoch >= share * settings.epochs for share in settings.decay_at)


def _record(
    spec: Spec, settings: LinearSettings, classifier: nn.Linear, frozen: FrozenFeatures, place: tuple[int, int, int],
    loss: float,
) -> None:  # fmt: skip
    done, total, epoch = place
    # A huge rate makes weights overflow in a step and the loss of the next one NaN; the epoch's mean shows either.
    if not torch.tensor(loss).isfinite():
        raise PCDError(f"the linear probe diverged in epoch {epoch + 1} (loss {loss}); lower its learning_rate")
    found = accuracies(classifier, frozen.val, frozen.val_labels)
    figures = {name: value for name, value in found.items() if value is not None}
    spec.metrics.log(done, total, {"loss": loss, "learning_rate": _learning_rate(settings, epoch), **figures})


def _save(spec: Spec, classifier: nn.Linear, optimizer: torch.optim.Optimizer, done: int, loss_sum: Tensor) -> None:
    state = {"step": done, "classifier": classifier.state_dict(), "optimizer": optimizer.state_dict()}
    save_checkpoint(spec.out / "checkpoint.pt", state | {"loss_sum": loss_sum, "settings": spec.settings})


def _resume(
    spec: Spec, classifier: nn.Linear, optimizer: torch.optim.Optimizer, device: torch.device
) -> tuple[int, Tensor]:
    """The step to go on from, and the sum of the losses of its epoch so far."""
    state = load_own_checkpoint(spec)
    if state is None:
        return 0, torch.zeros((), device=device)
    classifier.load_state_dict(state["classifier"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"]), state["loss_sum"].to(device)
