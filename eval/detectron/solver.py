"""Optimizer and learning rate of a detector's training: Detectron2's solver, as a pure function of the step."""

import torch
from detectron2.solver.build import get_default_optimizer_params
from torch import nn

from eval.finetune_settings import FinetuneSettings
from pcd.schedule import cosine_with_warmup, steps_with_warmup

__all__ = ["build_optimizer", "learning_rate"]


def build_optimizer(detector: nn.Module, settings: FinetuneSettings) -> torch.optim.Optimizer:
    groups = get_default_optimizer_params(
        detector, settings.learning_rate, settings.weight_decay, 0.0, 1.0, None
    )  # biases too
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=settings.learning_rate, fused=True)
    return torch.optim.SGD(groups, lr=settings.learning_rate, momentum=0.9)


def learning_rate(settings: FinetuneSettings, step: int) -> float:
    """Of step `step`, counted from 0."""
    total, warmup, peak = settings.iterations, settings.warmup_iterations, settings.learning_rate
    if settings.schedule == "cosine":
        return cosine_with_warmup(step, total, warmup, peak, settings.warmup_factor)
    return steps_with_warmup(step, total, warmup, peak, settings.decay_at, settings.warmup_factor)
