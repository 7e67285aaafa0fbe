"""Is a rerun the same as its original? A verdict for each cell, and the reason for it.

A verdict is worded by the spread of seeds and by the noise that the benchmark states, never by one figure alone:
facebookresearch/detectron2#4260 (about 2 AP between runs with one seed, on a small set), facebookresearch/moco#39
(0.3 AP on COCO "within a reasonable range of random variation").
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np
from scipy import stats

from eval.confidence import CONFIDENCE
from eval.metric_names import HEADLINES

__all__ = [
    "BASES", "JUDGED_METRICS", "CellRun", "CellVerdict", "Difference", "Outcome", "RunVerdict", "Tolerance",
    "judge", "judged_metrics", "tolerance_of",
]  # fmt: skip

Outcome = Literal["identical", "reproduced", "not reproduced", "not comparable"]

JUDGED_METRICS: Final = HEADLINES
"""What a verdict rests on, where a cell's protocol gives it. All other figures only count for `identical`."""
_OF_DETECTORS: Final = ("bbox/AP", "segm/AP")

BASES: Final = ("settings", "data", "source", "versions", "hardware")
"""What an AP rests on, besides chance."""

_ROUNDING: Final = 1e-9  # 10.3 - 10.0 is more than 0.3
_IS_SHA256: Final = re.compile(r"[0-9a-f]{64}").fullmatch


@dataclass(frozen=True, slots=True, kw_only=True)
class CellRun:
    """One cell as one run left it. A cell that has no result has a `hole` instead."""

    cell: str
    """Readable id, arm.protocol.seed."""
    group: str = ""
    """Cells that differ by their seed alone have the same: arm.protocol."""
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    """Per cent, as in eval.results_frame.Cell; None where the split has no such object."""
    weights_sha256: str | None = None
    """Of the fine-tuned detector; None where it was not recorded."""
    basis: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Each of BASES to what it was: name to value."""
    hole: str | None = None
    """Why there is no result."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far two runs of the same experiment may lie apart."""

    ap: float
    """Per cent."""
    source: str
    """What gave it."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One of JUDGED_METRICS in both runs, per cent."""

    original: float
    rerun: float
    tolerance: Tolerance

    @property
    def change(self) -> float:
        return self.rerun - self.original

    @property
    def is_within(self) -> bool:
        return abs(self.change) <= self.tolerance.ap + _ROUNDING

    @property
    def fell(self) -> bool:
        return self.change < 0 and not self.is_within


@dataclass(frozen=True, slots=True, kw_only=True)
class CellVerdict:
    cell: str
    outcome: Outcome | None
    """None for a hole: of an AP that is missing, nothing is said."""
    reasons: tuple[str, ...] = ()
    """What differs, where runs cannot be compared; which side has a hole, and why."""
    differences: Mapping[str, Difference] = field(default_factory=dict)
    """By metric; empty for a hole, and where it is another experiment."""
    lost: bool = False
    """The original has a result, and the rerun has none."""

    @property
    def regressed(self) -> bool:
        """AP fell by more than the tolerance, whatever else may have changed since."""
        return any(difference.fell for difference in self.differences.values())


@dataclass(frozen=True, slots=True)
class RunVerdict:
    cells: tuple[CellVerdict, ...]

    @property
    def regressed(self) -> bool:
        return any(cell.regressed for cell in self.cells)

    @property
    def outcome(self) -> Outcome | None:
        """That of the worst cell; None if nothing worse than a hole is there, or no cell at all."""
        found = {cell.outcome for cell in self.cells} or {None}
        order: tuple[Outcome | None, ...] = ("not reproduced", None, "not comparable", "reproduced", "identical")
        return next(outcome for outcome in order if outcome in found)

    @property
    def is_failure(self) -> bool:
        """Whether somebody has to look: not reproduced, fallen since an upgrade, or a result that is no more."""
        return self.regressed or self.outcome == "not reproduced" or any(cell.lost for cell in self.cells)


def judged_metrics(verdict: RunVerdict) -> dict[str, str]:
    """Those of JUDGED_METRICS that any cell was judged by, and how people call them; of nothing but holes both APs."""
    found = {metric for cell in verdict.cells for metric in cell.differences} or set(_OF_DETECTORS)
    return {metric: label for metric, label in JUDGED_METRICS.items() if metric in found}


def judge(original: Iterable[CellRun], rerun: Iterable[CellRun], noise_ap: float) -> RunVerdict:
    """A verdict for each cell of either run, in the original's order.

    Args:
        original, rerun: the cells of both runs, holes among them; each cell once.
        noise_ap: difference of AP, per cent, that the benchmark states to be chance for one and the same setting.
    """
    before, after = ({cell.cell: cell for cell in run} for run in (original, rerun))
    tolerances = {
        group: {m: tolerance_of(_figures_of(before.values(), group, m), noise_ap) for m in JUDGED_METRICS}
        for group in {cell.group for cell in before.values()}
    }
    absent = {name: CellRun(cell=name, hole="it has no such cell") for name in (*before, *after)}
    verdicts = []
    for name, nothing in absent.items():
        old, new = before.get(name, nothing), after.get(name, nothing)
        verdicts.append(_judge_cell(old, new, tolerances.get(old.group, {})))
    return RunVerdict(tuple(verdicts))


def tolerance_of(figures: Sequence[float], noise_ap: float) -> Tolerance:
    """The larger of what the spread over seeds gives and of the stated noise.

    `figures` are those of the original's seeds, per cent. Two further runs differ by less than t · s · √2 with a
    probability of 95 %, where s is the sample's standard deviation over n seeds and t the quantile of Student's
    distribution with n - 1 degrees of freedom. The rerun's own spread has no say: a run that has become unsteady would
    excuse itself.
    """
    stated = Tolerance(noise_ap, "stated noise")
    if len(figures) < 2:
        return stated
    n = len(figures)
    quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, df=n - 1))
    spread = quantile * float(np.std(figures, ddof=1)) * math.sqrt(2)
    return Tolerance(spread, f"spread of {n} seeds") if spread > noise_ap else stated


def _figures_of(cells: Iterable[CellRun], group: str, metric: str) -> list[float]:
    figures = [cell.metrics.get(metric) for cell in cells if cell.group == group and cell.hole is None]
    return [figure for figure in figures if figure is not None and math.isfinite(figure)]


def _judge_cell(old: CellRun, new: CellRun, tolerances: Mapping[str, Tolerance]) -> CellVerdict:
    given = {**old.metrics, **new.metrics}
    judged = [metric for metric in JUDGED_METRICS if metric in given] or list(_OF_DETECTORS)
    holes_before, holes_after = _holes("original", old, judged), _holes("rerun", new, judged)
    if holes_before or holes_after:
        return CellVerdict(cell=old.cell, outcome=None, reasons=(*holes_before, *holes_after), lost=not holes_before)
    reasons = tuple(line for base in BASES for line in _differing(base, old, new))
    if _is_another_experiment(old, new):
        return CellVerdict(cell=old.cell, outcome="not comparable", reasons=reasons)
    differences = {
        metric: Difference(_figure(old, metric), _figure(new, metric), tolerances[metric]) for metric in judged
    }
    outcome: Outcome
    if _are_identical(old, new):
        outcome = "identical"
    elif reasons:
        outcome = "not comparable"
    else:
        outcome = "reproduced" if all(d.is_within for d in differences.values()) else "not reproduced"
    return CellVerdict(cell=old.cell, outcome=outcome, reasons=reasons, differences=differences)


def _holes(side: str, run: CellRun, judged: Sequence[str]) -> tuple[str, ...]:
    if run.hole is not None:
        return (f"{side}: {run.hole}",)
    missing = [JUDGED_METRICS[metric] for metric in judged if not _is_figure(run.metrics.get(metric))]
    return (f"{side}: {' and '.join(missing)} missing",) if missing else ()


def _is_figure(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _figure(run: CellRun, metric: str) -> float:
    value = run.metrics[metric]
    assert value is not None  # _holes looked
    return value


def _are_identical(old: CellRun, new: CellRun) -> bool:
    return old.weights_sha256 is not None and (old.weights_sha256, old.metrics) == (new.weights_sha256, new.metrics)


def _is_another_experiment(old: CellRun, new: CellRun) -> bool:
    """Other data, or another value of a setting. One that a side lacks came or went with the source."""
    before, after = old.basis.get("settings", {}), new.basis.get("settings", {})
    return bool(_differing("data", old, new)) or any(before[name] != after[name] for name in before.keys() & after)


def _differing(base: str, old: CellRun, new: CellRun) -> tuple[str, ...]:
    """One line per name whose value is not the same on both sides."""
    before, after = old.basis.get(base, {}), new.basis.get(base, {})
    names = [name for name in sorted({*before, *after}) if before.get(name) != after.get(name)]
    return tuple(f"{base}: {name} {_told(before.get(name))} -> {_told(after.get(name))}" for name in names)


def _told(value: str | None) -> str:
    if value is None:
        return "absent"
    return value[:12] if _IS_SHA256(value) else value
