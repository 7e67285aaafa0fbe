"""Detectron2's Mask R-CNN, trained by one flat loop."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from eval.detectron.data import training_loader
from eval.detectron.frozen import to_training_mode
from eval.detectron.solver import build_optimizer, learning_rate
from eval.finetune_settings import FinetuneSettings
from pcd.checkpoint import save_checkpoint
from pcd.distributed import any_rank, world_size
from pcd.errors import PCDError
from pcd.optim import set_learning_rate
from pcd.precision import autocast_type
from pcd.resume import load_own_checkpoint
from pcd.stage import Spec, Stopped

__all__ = ["build_detector", "train_detector"]


def build_detector(cfg: Any, settings: FinetuneSettings) -> Any:
    """Detectron2's GeneralizedRCNN, freshly initialised from torch's current seed; the backbone autocast if asked."""
    detector = build_model(cfg).to(memory_format=torch.channels_last)
    half = autocast_type(settings.precision, torch.device(cfg.MODEL.DEVICE))
    if half:
        detector.backbone.forward = _autocast(detector.backbone.forward, cfg.MODEL.DEVICE, half)
    return detector


def _autocast(
    forward: Callable[[Tensor], dict[str, Tensor]], device: str, half: torch.dtype
) -> Callable[[Tensor], dict[str, Tensor]]:
    # Only backbone and FPN: RoIAlign and the losses behind them are fp32 operators on the CPU.
    def run(images: Tensor) -> dict[str, Tensor]:
        with torch.autocast(torch.device(device).type, half):
            return {name: maps.float() for name, maps in forward(images).items()}

    return run


@dataclass(frozen=True, slots=True)
class _Run:
    detector: Any
    optimizer: torch.optim.Optimizer
    spec: Spec


def train_detector(cfg: Any, detector: Any, settings: FinetuneSettings, train_name: str, seed: int, spec: Spec) -> None:
    """Train in place, from the last checkpoint if there is one.

    Raises Stopped behind a checkpoint when asked to stop, and PCDError on a loss that is not finite or a checkpoint of
    other settings.
    """
    run = _Run(detector, build_optimizer(detector, settings), spec)
    first, total = _resume(run), settings.iterations
    replica: nn.Module = detector
    if world_size() > 1:
        replica = DistributedDataParallel(detector, forward_sync_buffers=False)
    batches = iter(training_loader(cfg, train_name, spec.runtime["workers"], seed, first))
    device = torch.device(cfg.MODEL.DEVICE)

    to_training_mode(detector)
    saved_at = time.monotonic()
    with EventStorage(first):  # Detectron2's modules write their own figures into the current one
        for step in range(first, total):
            rate = learning_rate(settings, step)
            set_learning_rate(run.optimizer, rate)
            batch = next(batches)
            # The proposals of this step are drawn from (seed, step), so that a resumed run meets the same ones.
            torch.manual_seed((seed << 32) + step)
            losses = _forward(replica, batch, step)
            loss = torch.stack(list(losses.values())).sum()
            run.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if settings.clip_gradient_norm:
                nn.utils.clip_grad_norm_(detector.parameters(), settings.clip_gradient_norm)
            run.optimizer.step()

            done = step + 1
            if done % spec.runtime["log_every"] == 0 or done == total:
                parts = {name: value.item() for name, value in losses.items()}
                spec.metrics.log(done, total, {"loss": loss.item(), **parts, "learning_rate": rate})
            (stop,) = any_rank([spec.stop_requested], device)
            if stop or time.monotonic() - saved_at > spec.runtime["checkpoint_seconds"]:
                _save(run, done)
                saved_at = time.monotonic()
            if stop:
                raise Stopped
    _save(run, total)  # so that a stop during the evaluation costs no training


def _forward(replica: nn.Module, batch: Any, step: int) -> dict[str, Tensor]:
    """Detectron2's losses by name; PCDError if one is not finite."""
    try:
        losses: dict[str, Tensor] = replica(batch)
    except FloatingPointError as error:  # Detectron2's own check of its proposals
        raise PCDError(f"training diverged at step {step} ({error}); lower the protocol's learning_rate") from None
    faulty = {name: value.item() for name, value in losses.items() if not torch.isfinite(value)}
    if faulty:
        named = ", ".join(f"{name} is {value}" for name, value in faulty.items())
        raise PCDError(f"training diverged at step {step} ({named}); lower the protocol's learning_rate")
    return losses


def _save(run: _Run, done: int) -> None:
    if run.spec.is_first_rank:
        state = {"step": done, "detector": run.detector.state_dict(), "optimizer": run.optimizer.state_dict()}
        save_checkpoint(run.spec.out / "checkpoint.pt", state | {"settings": run.spec.settings})


def _resume(run: _Run) -> int:
    state = load_own_checkpoint(run.spec)
    if state is None:
        return 0
    run.detector.load_state_dict(state["detector"])
    run.optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])
