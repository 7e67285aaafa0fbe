"""The learning rate as a pure function of the step."""

import math
from collections.abc import Sequence

__all__ = ["cosine_with_warmup", "steps_with_warmup"]


def cosine_with_warmup(step: int, total: int, warmup: int, peak: float, factor: float | None = None) -> float:
    """Learning rate of step `step` of `total` (counted from 0).

    Rises linearly over the first `warmup` steps, its first value being peak / warmup (the released code computes its
    first epoch at 0 and throws the gradients away), then falls as a cosine that would reach 0 at step `total`.

    Args:
        factor: the share of the peak that the rise begins at, to reach the peak behind it: Detectron2's rule.
    """
    if step < warmup:
        return _risen(step, warmup, peak, factor)
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))


def steps_with_warmup(
    step: int, total: int, warmup: int, peak: float, decay_at: Sequence[float], factor: float | None = None
) -> float:
    """Linear warm-up as above, then a tenth behind each share of `total` in `decay_at`."""
    if step < warmup:
        return _risen(step, warmup, peak, factor)
    return peak * 0.1 ** sum(step >= share * total for share in decay_at)


def _risen(step: int, warmup: int, peak: float, factor: float | None) -> float:
    if factor is None:
        return peak * (step + 1) / warmup
    return peak * (factor + (1 - factor) * step / warmup)
