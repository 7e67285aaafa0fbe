"""How many images a classifier of frozen features gets right."""

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

__all__ = ["accuracies"]

_CHUNK: Final = 8192
"""Images whose scores are held at once: of ImageNet's training images all would take 5 GB."""


@torch.no_grad()
def accuracies(classifier: Callable[[Tensor], Tensor], features: Tensor, labels: Tensor) -> dict[str, float | None]:
    """Per cent: `top1`, and `top5`, None where there are no more than five classes and it would always be 100.

    Args:
        classifier: (B, C) -> (B, classes); the highest score is its choice.
        features: (N, C), N at least 1.
        labels: (N,), integers from 0.
    """
    first, any_of_five, classes = 0, 0, 0
    for part, truth in zip(features.split(_CHUNK), labels.split(_CHUNK), strict=True):
        scores = classifier(part)  # (B, classes)
        classes = scores.shape[1]
        is_right = scores.topk(min(5, classes), dim=1).indices == truth[:, None]  # (B, 5)
        first += int(is_right[:, 0].sum())
        any_of_five += int(is_right.any(dim=1).sum())
    return {"top1": 100 * first / len(labels), "top5": 100 * any_of_five / len(labels) if classes > 5 else None}
