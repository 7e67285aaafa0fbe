"""Which arm is the best of its protocol, and which cannot be told from it."""

from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
import pandas as pd

from eval.chance import may_be_chance
from eval.confidence import CONFIDENCE

__all__ = ["MARKS", "Standing", "standing_note", "standings"]

Standing = Literal["best", "within noise"]

MARKS: Final[dict[Standing, str]] = {"best": "*", "within noise": "~"}


def standings(cells: pd.DataFrame, metrics: Sequence[str], noise_ap: float) -> dict[tuple[str, str, str], Standing]:
    """(arm, protocol, metric) to its standing, of the arms that have one; none where a protocol has one arm alone.

    An arm is within noise of the best if the difference of their means may be chance (eval.chance).

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
                elif may_be_chance(by_arm[best], figures, noise_ap):
                    found[arm, str(protocol), metric] = "within noise"
    return found


def standing_note(noise_ap: float) -> str:
    """What has to stand under a table with MARKS."""
    return (
        f"{MARKS['best']} the best of its protocol; {MARKS['within noise']} cannot be told from it: by Welch's t over "
        f"the seeds ({100 * CONFIDENCE:.0f} %, each pair for itself), or where one of them has one seed by the larger "
        f"of the stated noise of {noise_ap:g} AP and of the other's spread."
    )
