"""May a difference of two arms, or of two runs of one arm, be the chance of their seeds?"""

from collections.abc import Sequence

import numpy as np
from scipy import stats

from eval.confidence import CONFIDENCE
from eval.verdict import tolerance_of

__all__ = ["may_be_chance", "seed_interval"]


def seed_interval(of: Sequence[float], against: Sequence[float]) -> tuple[float, float] | None:
    """Ends of the 95 % interval of mean(of) - mean(against) by Welch's t over the seeds, for this pair alone.

    None where a side has one seed, or neither has any spread: of that Welch's t knows nothing.
    """
    if min(len(of), len(against)) < 2 or (np.ptp(of) == 0 and np.ptp(against) == 0):
        return None
    interval = stats.ttest_ind(of, against, equal_var=False).confidence_interval(CONFIDENCE)
    return float(interval.low), float(interval.high)


def may_be_chance(of: Sequence[float], against: Sequence[float], noise_ap: float) -> bool:
    """Whether the means are no farther apart than chance puts them in 95 % of cases.

    By Welch's t over the seeds; where a side has one seed, by the larger of the stated noise and of what the other
    side's seeds spread by (eval.verdict.tolerance_of). Several seeds without any spread are compared as they are.

    Args:
        of, against: a figure of each seed, per cent; one at least.
        noise_ap: difference of AP that the benchmark states to be chance, per cent.
    """
    difference = float(np.mean(of) - np.mean(against))
    if (ends := seed_interval(of, against)) is not None:
        return ends[0] <= 0 <= ends[1]
    if min(len(of), len(against)) < 2:
        return abs(difference) <= max(tolerance_of(figures, noise_ap).ap for figures in (of, against))
    return difference == 0
