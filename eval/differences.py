"""How far each arm lies from those that it is held against, with the chance of the seeds and that of the images."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd

from eval.chance import seed_interval
from eval.coco.bootstrap import interval
from eval.coco.intervals import Drawn
from eval.confidence import CONFIDENCE
from eval.metric_names import ABSENT, HEADLINES

__all__ = ["arm_differences", "difference_note", "printed_differences"]

_COLUMNS: Final = (
    "arm", "against", "protocol", "metric", "n", "n against", "difference",
    "seeds low", "seeds high", "images low", "images high",
)  # fmt: skip


def arm_differences(
    cells: pd.DataFrame, against: Sequence[str], drawn: Mapping[tuple[str, str], Mapping[str, Drawn]]
) -> pd.DataFrame:
    """A row for each protocol, figure of HEADLINES, arm of `against` and other arm, in this order.

    Columns: arm, against, protocol, metric, n and n against (seeds), difference (of the means over seeds, per cent),
    and the ends of two 95 % intervals of it: seeds (eval.chance), images (the paired bootstrap over the evaluation
    images). NaN where a side has one seed, or left nothing to draw from.

    Args:
        cells: as of eval.table.cell_table.
        drawn: as of eval.coco.intervals.draw_arms.
    """
    rows: list[dict[str, Any]] = []
    for protocol, of_protocol in cells.groupby("protocol", sort=False):
        for metric in (name for name in HEADLINES if name in cells):
            by_arm = {str(arm): f.dropna().tolist() for arm, f in of_protocol.groupby("arm", sort=False)[metric]}
            by_arm = {arm: figures for arm, figures in by_arm.items() if figures}
            of_images = drawn.get((str(protocol), metric.partition("/")[0]), {})
            for base in (arm for arm in against if arm in by_arm):
                for arm in (arm for arm in by_arm if arm != base):
                    row = {"arm": arm, "against": base, "protocol": protocol, "metric": metric}
                    row |= {"n": len(by_arm[arm]), "n against": len(by_arm[base])}
                    row |= {"difference": float(np.mean(by_arm[arm]) - np.mean(by_arm[base]))}
                    row |= _ends("seeds", seed_interval(by_arm[arm], by_arm[base]))
                    rows.append(row | _ends("images", _over_images(of_images, arm, base)))
    return pd.DataFrame(rows, columns=list(_COLUMNS))


def _over_images(drawn: Mapping[str, Drawn], arm: str, base: str) -> tuple[float, float] | None:
    if arm not in drawn or base not in drawn:
        return None
    found = interval(drawn[arm].ap - drawn[base].ap, drawn[arm].draws - drawn[base].draws)
    return found.low, found.high


def _ends(name: str, ends: tuple[float, float] | None) -> dict[str, float]:
    low, high = ends or (np.nan, np.nan)
    return {f"{name} low": low, f"{name} high": high}


def printed_differences(differences: pd.DataFrame) -> pd.DataFrame:
    """As text, one decimal, with both intervals."""
    shown = differences[["arm", "against", "protocol"]].astype(str)
    shown["figure"] = differences["metric"].map(HEADLINES)
    shown["n"] = [
        f"{a}" if a == b else f"{a} | {b}" for a, b in zip(differences["n"], differences["n against"], strict=True)
    ]
    shown["difference"] = differences["difference"].map(lambda value: f"{value:+.1f}")
    for name in ("seeds", "images"):
        ends = zip(differences[f"{name} low"], differences[f"{name} high"], strict=True)
        shown[f"over {name}"] = [ABSENT if np.isnan(low) else f"{low:+.1f} to {high:+.1f}" for low, high in ends]
    return shown


def difference_note() -> str:
    """What has to stand under a table of differences."""
    return (
        f"Differences: “over seeds” holds {100 * CONFIDENCE:.0f} % of the chance of training and “over images” of the "
        "evaluation images, each pair for itself; of several pairs, some leave out 0 by chance alone. What all cells "
        "share (teacher, images, one set of annotations) is in neither."
    )
