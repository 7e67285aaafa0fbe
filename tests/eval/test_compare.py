from pathlib import Path
from typing import Any

import pytest

from eval.coco.report import report
from eval.coco.synthetic import make_detections, make_objects
from eval.compare import ComparedRun, changes, compare, comparison_note, printed_comparison
from eval.verdict import CellRun


def cell(arm: str, seed: int, ap: float | None, **basis: dict[str, str]) -> CellRun:
    return CellRun(cell=f"{arm}.fpn.seed{seed}", group=f"{arm}.fpn", metrics={"bbox/AP": ap}, basis=basis)


def run(*cells: CellRun, folders: dict[str, Path] | None = None, noise_ap: float = 2.0) -> ComparedRun:
    return ComparedRun(cells, folders or {}, noise_ap=noise_ap)


def test_the_difference_is_that_of_the_means_over_seeds() -> None:
    table = compare(run(cell("pcd", 0, 10.0), cell("pcd", 1, 12.0)), run(cell("pcd", 0, 14.0)))
    assert table.loc[0, ["n before", "n after", "before", "after", "difference"]].tolist() == [2, 1, 11.0, 14.0, 3.0]
    assert table.loc[0, ["seeds low", "images low"]].isna().all()
    assert printed_comparison(table).iloc[0].tolist() == [
        *("pcd", "fpn", "box AP", "2 | 1", "11.0", "14.0", "+3.0", "–", "–", "no")
    ]


def test_an_arm_of_one_run_alone_has_no_difference() -> None:
    table = compare(run(cell("pcd", 0, 10.0)), run(cell("seed", 0, 8.0)))
    assert printed_comparison(table)[["before", "after", "difference"]].to_numpy().tolist() == [
        ["10.0", "–", "–"],
        ["–", "8.0", "–"],
    ]


@pytest.fixture
def evaluated(tmp_path: Path) -> dict[str, dict[str, Path]]:
    """Runs by name, each cell's folder: one that finds all, one that finds half, and one on other images."""
    coco = make_objects(40, 120, 3, seed=0)
    found = make_detections(coco, 10, seed=1)
    other = make_objects(30, 120, 3, seed=5)
    sets: dict[str, tuple[Any, Any]] = {
        "all": (coco, found), "half": (coco, found[::2]), "elsewhere": (other, make_detections(other, 10, seed=1)),
    }  # fmt: skip
    for name, (objects, detections) in sets.items():
        (tmp_path / name).mkdir()
        report(objects, detections, ["bbox"], tmp_path / name)
    return {name: {"pcd.fpn.seed0": tmp_path / name} for name in sets}


def test_on_the_same_images_the_difference_has_its_paired_interval(evaluated: dict[str, dict[str, Path]]) -> None:
    before = run(cell("pcd", 0, 20.0), folders=evaluated["half"])
    same = compare(before, run(cell("pcd", 0, 20.0), folders=evaluated["half"]))
    assert same.loc[0, ["difference", "images low", "images high"]].tolist() == [0.0, 0.0, 0.0]
    better = compare(before, run(cell("pcd", 0, 30.0), folders=evaluated["all"]))
    assert 0 < better["images low"][0] < better["images high"][0]


def test_what_the_images_leave_sure_is_chance_as_long_as_another_seed_may_give_it(
    evaluated: dict[str, dict[str, Path]],
) -> None:
    table = compare(
        run(cell("pcd", 0, 20.0), folders=evaluated["half"], noise_ap=15.0),
        run(cell("pcd", 0, 30.0), folders=evaluated["all"], noise_ap=0.5),
    )
    assert table["images low"][0] > 0
    assert table["beyond chance"].tolist() == [False]


@pytest.mark.parametrize(("after", "told"), [((20.0, 20.4, 20.2), "yes"), ((9.0, 14.0, 12.0), "no")])
def test_of_several_seeds_welchs_t_tells_what_is_beyond_chance(after: tuple[float, ...], told: str) -> None:
    before = run(*(cell("pcd", i, ap) for i, ap in enumerate((10.0, 11.0, 10.5))))
    shown = printed_comparison(compare(before, run(*(cell("pcd", i, ap) for i, ap in enumerate(after)))))
    assert shown["beyond chance"].tolist() == [told]
    assert " to " in shown["over seeds"][0]
    assert "stated noise of 3 AP" in comparison_note(3.0)


def test_on_other_images_there_is_no_paired_interval(evaluated: dict[str, dict[str, Path]]) -> None:
    table = compare(
        run(cell("pcd", 0, 20.0), folders=evaluated["all"]), run(cell("pcd", 0, 30.0), folders=evaluated["elsewhere"])
    )
    assert table["images low"].isna().all()


def test_what_else_differs_is_named_with_both_values() -> None:
    before = [cell("pcd", 0, 1.0, settings={"pretrain.epochs": "2"}, versions={"torch": "2.14.0"})]
    after = [cell("pcd", 0, 1.0, settings={"pretrain.epochs": "3"}, versions={"torch": "2.14.0"})]
    assert changes(before, after) == {"settings": ["pretrain.epochs: 2 -> 3"]}
    assert changes(before, before) == {}


def test_settings_that_two_arms_have_swapped_are_named_with_their_arms() -> None:
    crossed, same = ({"pairing": value} for value in ("crossed", "same"))
    before = [*(cell("pcd", i, 1.0, settings=crossed) for i in (0, 1)), cell("seed", 0, 1.0, settings=same)]
    after = [*(cell("pcd", i, 1.0, settings=same) for i in (0, 1)), cell("seed", 0, 1.0, settings=crossed)]
    assert changes(before, after) == {
        "settings": ["pairing: crossed -> same (pcd.fpn)", "pairing: same -> crossed (seed.fpn)"]
    }
    assert changes(before, [after[0], *before[1:]]) == {"settings": ["pairing: crossed -> same (pcd.fpn.seed0)"]}


def test_long_values_are_told_where_they_part() -> None:
    long = "x" * 100
    before, after = ([cell("pcd", 0, 1.0, settings={"list": f"{long}{end}"})] for end in ("a", "b"))
    assert changes(before, after) == {"settings": [f"list: …{'x' * 20}a -> …{'x' * 20}b"]}


def test_a_long_value_that_goes_on_is_told_where_it_does() -> None:
    before, after = ([cell("pcd", 0, 1.0, settings={"list": "x" * n})] for n in (70, 75))
    assert changes(before, after) == {"settings": [f"list: …{'x' * 20} -> …{'x' * 25}"]}


def test_cells_of_one_run_and_holes_are_named() -> None:
    hole = CellRun(cell="pcd.fpn.seed1", group="pcd.fpn", hole="killed")
    found = changes([cell("pcd", 0, 1.0), cell("pcd", 1, 1.0)], [hole, cell("seed", 0, 1.0)])
    assert found["cells"] == [
        "pcd.fpn.seed0: only before", "seed.fpn.seed0: only after", "pcd.fpn.seed1: a hole after (killed)"
    ]  # fmt: skip


def test_without_any_figure_there_are_no_rows() -> None:
    assert compare(run(cell("pcd", 0, None)), run(cell("pcd", 0, None))).empty
