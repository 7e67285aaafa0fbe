"""The optimizer, with biases and normalisation left out of weight decay and of LARS's adaptation."""

import torch
from timm.optim.lars import Lars
from torch import nn

from pcd.settings import OptimizerSettings

__all__ = ["build_optimizer", "set_learning_rate"]


def build_optimizer(model: nn.Module, settings: OptimizerSettings) -> torch.optim.Optimizer:
    """LARS or AdamW over two groups: weights, and everything of one dimension (biases, BatchNorm, LayerNorm).

    Both work on whole groups at once: AdamW in one fused kernel, on the CPU too, and LARS by foreach on CUDA.

    timm's LARS adapts only groups with weight decay, so the second group, whose weight decay is 0, is stepped by plain
    momentum. With no weight decay anywhere it would adapt no group at all; `always_adapt` stays off for the second one.
    """
    weights = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    others = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [
        {"params": weights, "weight_decay": settings.weight_decay, "always_adapt": True},
        {"params": others, "weight_decay": 0.0, "always_adapt": False},
    ]
    if settings.name == "lars":
        optimizer: torch.optim.Optimizer = Lars(groups, lr=settings.learning_rate, momentum=settings.momentum)
        return optimizer
    for group in groups:
        del group["always_adapt"]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(settings.momentum, 0.999), fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
