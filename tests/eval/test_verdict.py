"""Every verdict, from figures that can be checked by hand."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.verdict import BASES, JUDGED_METRICS, CellRun, CellVerdict, judge, judged_metrics, tolerance_of

NOISE = 0.3
BASIS: Mapping[str, Mapping[str, str]] = {
    "settings": {"finetune.iterations": "90000"},
    "data": {"fingerprint": "d" * 64},
    "source": {"eval/finetune.py": "a" * 64},
    "versions": {"torch": "2.14.0"},
    "hardware": {"device": "NVIDIA H200"},
}
APS = st.floats(0, 100)


def run(
    box: float | None, mask: float | None = 20.0, *, seed: int = 0, weights: str | None = "w", **basis: Any
) -> CellRun:
    """A cell; `basis` lays a value over one of BASES."""
    changed = {base: BASIS[base] | basis.get(base, {}) for base in BASES}
    metrics = {"bbox/AP": box, "segm/AP": mask, "bbox/AP50": 50.0}
    return CellRun(cell=f"pcd.fpn.seed{seed}", group="pcd.fpn", metrics=metrics, weights_sha256=weights, basis=changed)


def judge_one(old: CellRun, new: CellRun, noise: float = NOISE) -> CellVerdict:
    (verdict,) = judge([old], [new], noise).cells
    return verdict


def test_same_weights_and_same_figures_are_identical() -> None:
    verdict = judge_one(run(40.0), run(40.0))
    assert (verdict.outcome, verdict.regressed, verdict.reasons) == ("identical", False, ())


@pytest.mark.parametrize("other", [run(40.0, weights="v"), run(40.0, weights=None), run(40.1)])
def test_other_weights_or_figures_within_the_tolerance_are_reproduced(other: CellRun) -> None:
    assert judge_one(run(40.0), other).outcome == "reproduced"


def test_weights_that_nobody_hashed_are_not_called_identical() -> None:
    assert judge_one(run(40.0, weights=None), run(40.0, weights=None)).outcome == "reproduced"


def test_a_figure_beside_ap_that_moved_is_not_identical() -> None:
    other = run(40.0)
    other = dataclasses.replace(other, metrics={**other.metrics, "bbox/AP50": 51.0})
    assert judge_one(run(40.0), other).outcome == "reproduced"


@pytest.mark.parametrize(
    ("box", "mask", "outcome", "regressed"),
    [
        (40.3, 20.0, "reproduced", False),  # 40.3 - 40.0 is a little more than 0.3 in binary
        (39.7, 20.0, "reproduced", False),
        (40.31, 20.0, "not reproduced", False),
        (39.69, 20.0, "not reproduced", True),
        (40.0, 19.69, "not reproduced", True),
        (40.0, 20.31, "not reproduced", False),
    ],
)
def test_box_and_mask_ap_must_both_lie_within_the_tolerance(
    box: float, mask: float, outcome: str, regressed: bool
) -> None:
    verdict = judge_one(run(40.0), run(box, mask))
    assert (verdict.outcome, verdict.regressed) == (outcome, regressed)


@pytest.mark.parametrize("base", ["source", "versions", "hardware"])
def test_bit_identical_results_are_identical_whatever_computed_them(base: str) -> None:
    verdict = judge_one(run(40.0), run(40.0, **{base: {"torch": "2.15.0"}}))
    assert verdict.outcome == "identical"
    assert [line.partition(":")[0] for line in verdict.reasons] == [base]


@pytest.mark.parametrize("base", ["source", "versions", "hardware"])
@pytest.mark.parametrize(("box", "regressed"), [(40.1, False), (38.0, True), (42.0, False)])
def test_after_an_upgrade_runs_are_not_comparable_and_a_drop_is_told(base: str, box: float, regressed: bool) -> None:
    original, rerun = [run(40.0)], [run(box, **{base: {"what": "new"}})]
    verdict = judge(original, rerun, NOISE)
    (cell,) = verdict.cells
    assert (cell.outcome, cell.regressed, verdict.is_failure) == ("not comparable", regressed, regressed)
    assert cell.reasons == (f"{base}: what absent -> new",)
    assert cell.differences["bbox/AP"].change == pytest.approx(box - 40)


@pytest.mark.parametrize(
    ("base", "name", "value"), [("settings", "finetune.iterations", "9"), ("data", "fingerprint", "e" * 64)]
)
def test_another_experiment_is_not_comparable_even_where_its_figures_agree(base: str, name: str, value: str) -> None:
    for other in (run(40.0, **{base: {name: value}}), run(1.0, **{base: {name: value}})):
        verdict = judge_one(run(40.0), other)
        assert (verdict.outcome, verdict.regressed, verdict.differences) == ("not comparable", False, {})
        assert verdict.reasons == (f"{base}: {name} {BASIS[base][name][:12]} -> {value[:12]}",)


def test_a_setting_that_came_with_the_source_is_no_other_experiment() -> None:
    changed = run(38.0, settings={"finetune.new": "0"}, source={"eval/finetune.py": "b" * 64})
    assert judge_one(run(40.0), changed).regressed
    assert judge_one(run(40.0), run(40.0, settings={"finetune.new": "0"})).outcome == "identical"


def test_everything_that_differs_is_listed() -> None:
    other = run(40.0, data={"fingerprint": "e" * 64}, versions={"torch": "2.15.0", "numpy": "3"})
    assert judge_one(run(40.0), other).reasons == (
        f"data: fingerprint {'d' * 12} -> {'e' * 12}",
        "versions: numpy absent -> 3",
        "versions: torch 2.14.0 -> 2.15.0",
    )


def hole(reason: str) -> CellRun:
    return CellRun(cell="pcd.fpn.seed0", group="pcd.fpn", hole=reason)


@pytest.mark.parametrize(
    ("old", "new", "reasons", "lost"),
    [
        ([run(40.0)], [hole("out of memory")], ("rerun: out of memory",), True),
        ([hole("stopped")], [run(40.0)], ("original: stopped",), False),
        ([hole("stopped")], [hole("stopped")], ("original: stopped", "rerun: stopped"), False),
        ([run(40.0)], [], ("rerun: it has no such cell",), True),
        ([], [run(40.0)], ("original: it has no such cell",), False),
        ([run(40.0)], [run(None)], ("rerun: box AP missing",), True),
        ([run(math.nan)], [run(40.0)], ("original: box AP missing",), False),
        ([run(None, None)], [hole("stopped")], ("original: box AP and mask AP missing", "rerun: stopped"), False),
        ([run(40.0)], [run(math.inf)], ("rerun: box AP missing",), True),
    ],
)  # fmt: skip
def test_a_hole_is_named_and_gets_no_verdict(
    old: list[CellRun], new: list[CellRun], reasons: tuple[str, ...], lost: bool
) -> None:
    verdict = judge(old, new, NOISE)
    (cell,) = verdict.cells
    assert (cell.outcome, cell.reasons, cell.differences, cell.regressed) == (None, reasons, {}, False)
    assert (cell.lost, verdict.is_failure) == (lost, lost)


def test_one_seed_has_only_the_stated_noise() -> None:
    assert (tolerance_of([40.0], 0.3).ap, tolerance_of([40.0], 0.3).source) == (0.3, "stated noise")
    assert tolerance_of([], 0.3).source == "stated noise"


def test_spread_of_seeds_gives_the_tolerance_of_a_difference_of_two_runs() -> None:
    # s = 1 over 39, 40, 41; Student's t for 95 % and two degrees of freedom is 4.303.
    tolerance = tolerance_of([39.0, 40.0, 41.0], 0.3)
    assert tolerance.ap == pytest.approx(4.303 * 1.0 * math.sqrt(2), rel=1e-3)
    assert tolerance.source == "spread of 3 seeds"


def test_two_seeds_have_one_degree_of_freedom() -> None:
    assert tolerance_of([40.0, 41.0], 0.3).ap == pytest.approx(12.706 * math.sqrt(0.5) * math.sqrt(2), rel=1e-3)


def test_the_larger_of_spread_and_noise_counts() -> None:
    assert tolerance_of([40.0, 40.001], 0.3).source == "stated noise"
    assert tolerance_of([40.0, 40.0], 0.0).ap == 0.0


def test_the_spread_of_other_arms_holes_and_metrics_has_no_say() -> None:
    steady = [run(40.0, 20.0, seed=0), run(40.0, 30.0, seed=1)]
    wild = [CellRun(cell=f"random.{i}", group="random", metrics={"bbox/AP": 10.0 * i, "segm/AP": 0.0}) for i in (1, 2)]
    lost = CellRun(cell="pcd.fpn.seed9", group="pcd.fpn", metrics={"bbox/AP": 90.0}, hole="damaged")
    verdict = judge([*steady, *wild, lost], [run(40.0, 20.0, seed=0)], NOISE)
    differences = verdict.cells[0].differences
    assert differences["bbox/AP"].tolerance.ap == 0.3
    assert differences["segm/AP"].tolerance.source == "spread of 2 seeds"


@pytest.mark.parametrize(
    ("aps", "outcome", "is_failure"),
    [
        ((40.0, 40.0), "identical", False),
        ((40.0, 40.1), "reproduced", False),
        ((40.0, 50.0), "not reproduced", True),
        ((50.0, None), "not reproduced", True),
        ((40.0, None), None, True),
    ],
)
def test_a_run_is_as_good_as_its_worst_cell(aps: tuple[float | None, ...], outcome: str, is_failure: bool) -> None:
    original = [CellRun(cell=str(i), metrics={"bbox/AP": 40, "segm/AP": 1}, weights_sha256="w") for i in range(2)]
    rerun = [
        dataclasses.replace(cell, metrics={**cell.metrics, "bbox/AP": ap})
        for cell, ap in zip(original, aps, strict=True)
    ]
    verdict = judge(original, rerun, NOISE)
    assert (verdict.outcome, verdict.is_failure) == (outcome, is_failure)


def test_cells_keep_the_order_of_the_original() -> None:
    original = [run(40.0, seed=seed) for seed in (2, 0, 1)]
    rerun = [run(40.0, seed=seed) for seed in (0, 1, 2, 3)]
    names = [cell.cell.removeprefix("pcd.fpn.seed") for cell in judge(original, rerun, NOISE).cells]
    assert names == ["2", "0", "1", "3"]


@given(APS, APS, st.floats(0, 5))
def test_swapping_the_runs_never_turns_reproduced_into_not_reproduced(a: float, b: float, noise: float) -> None:
    there, back = judge_one(run(a), run(b, weights="v"), noise), judge_one(run(b, weights="v"), run(a), noise)
    assert there.outcome == back.outcome
    assert not (there.regressed and back.regressed)


@given(APS, APS, st.floats(0, 5), st.floats(0, 5))
def test_a_larger_stated_noise_never_turns_reproduced_into_not_reproduced(
    a: float, b: float, noise: float, more: float
) -> None:
    if judge_one(run(a), run(b), noise).outcome == "reproduced":
        assert judge_one(run(a), run(b), noise + more).outcome == "reproduced"


@given(st.lists(APS, min_size=1, max_size=5), APS)
def test_the_reruns_own_spread_never_widens_the_tolerance(others: list[float], ap: float) -> None:
    """Else a run that has become unsteady would excuse itself."""
    original = [run(40.0 + seed / 10, seed=seed) for seed in range(6)]
    calm = judge(original, [run(ap)], NOISE).cells[0]
    wild = judge(original, [run(ap), *(run(other, seed=i) for i, other in enumerate(others, start=1))], NOISE).cells[0]
    assert calm == wild


@given(APS, APS, APS, APS, st.sampled_from(BASES))
def test_a_regression_is_always_a_failure_and_a_rise_never_a_regression(
    box: float, mask: float, new_box: float, new_mask: float, base: str
) -> None:
    verdict = judge([run(box, mask)], [run(new_box, new_mask, **{base: {"x": "y"}})], NOISE)
    if verdict.regressed:
        assert verdict.is_failure
    if new_box >= box and new_mask >= mask:
        assert not verdict.regressed


@pytest.mark.parametrize(
    ("metrics", "judged"),
    [({"bbox/AP": 40.0, "bbox/AP50": 60.0}, ["bbox/AP"]), ({"top1": 40.0, "top5": 60.0}, ["top1"])],
)
def test_a_cell_is_judged_by_what_its_protocol_gives(metrics: dict[str, float], judged: list[str]) -> None:
    old = dataclasses.replace(run(40.0, weights=None), metrics=metrics)
    new = dataclasses.replace(old, metrics={name: value + 0.1 for name, value in metrics.items()})
    verdict = judge([old], [new], NOISE)
    assert list(verdict.cells[0].differences) == judged
    assert list(judged_metrics(verdict)) == judged
    assert verdict.outcome == "reproduced"
    lost = judge_one(old, dataclasses.replace(old, metrics={judged[0]: None}))
    assert lost.reasons == (f"rerun: {JUDGED_METRICS[judged[0]]} missing",)


def test_a_verdict_of_holes_alone_names_both_aps() -> None:
    assert list(judged_metrics(judge([hole("stopped")], [hole("stopped")], NOISE))) == ["bbox/AP", "segm/AP"]
