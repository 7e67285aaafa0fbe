"""Which arm is the best of its protocol, and which cannot be told from it."""

from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
import pandas as pd
from scipy import stats

from eval.verdict import tolerance_of

__all__ = ["MARKS", "Standing", "standing_note", "standings"]

Standing = Literal["best", "within noise"]

MARKS: Final[dict[Standing, str]] = {"best": "*", "within noise": "~"}

_CONFIDENCE: Final = 0.95


def standings(cells: pd.DataFrame, metrics: Sequence[str], noise_ap: float) -> dict[tuple[str, str, str], Standing]:
    """(arm, protocol, metric) to its standing, of the arms that have one; none where a protocol has one arm alone.

    An arm is within noise of the best if their means differ by no more than Welch's t interval (95 %) over the seeds of
    both; where one of them has one seed, by no more than two runs of the best may (eval.verdict.tolerance_of).

    Args:
        cells: as of eval.table.cell_table.
        noise_ap: difference of AP that the benchmark states to be chance, per cent.
    """
    found: dict[tuple[str, str, str], Standing] = {}
    for protocol, of_protocol in cells.groupby("protocol", sort=False):
        for metric in metrics:
            by_arm = {str(arm): f.dropna().tolist() for arm, f in of_protocol.groupby("arm", sort=False)[metric]}
            by_arm = {arm: figures for arm, figures in by_arm.items() if figures}
            if len(by_arm) < 2:
                continue
            means = {arm: float(np.mean(figures)) for arm, figures in by_arm.items()}
            best = max(means, key=lambda arm: means[arm])
            for arm, figures in by_arm.items():
                if means[arm] == means[best]:  # those that are equal share the place, as where nothing was learnt
                    found[arm, str(protocol), metric] = "best"
                elif _is_within(by_arm[best], figures, noise_ap):
                    found[arm, str(protocol), metric] = "within noise"
    return found


def _is_within(best: Sequence[float], other: Sequence[float], noise_ap: float) -> bool:
    difference = float(np.mean(best) - np.mean(other))
    if min(len(best), len(other)) < 2:
        return difference <= max(tolerance_of(best, noise_ap).ap, tolerance_of(other, noise_ap).ap)
    if np.ptp(best) == 0 and np.ptp(other) == 0:  # no spread at all, of which Welch's t knows nothing
        return False
    interval = stats.ttest_ind(best, other, equal_var=False).confidence_interval(_CONFIDENCE)
    return bool(interval.low <= 0)


def standing_note(noise_ap: float) -> str:
    """What has to stand under a table with MARKS."""
    return (
        f"{MARKS['best']} the best of its protocol; {MARKS['within noise']} cannot be told from it: by Welch's t over "
        f"the seeds ({100 * _CONFIDENCE:.0f} %, each pair for itself), or with one seed by the stated noise of "
        f"{noise_ap:g} AP."
    )
