import pytest

from eval.results_frame import Cell
from eval.standing import standing_note, standings
from eval.table import cell_table

METRICS = ["bbox/AP"]


def found(noise_ap: float = 2.0, **figures: list[float]) -> dict[str, str]:
    """Arm to its standing."""
    cells = [
        Cell(cell=f"{arm}.fpn.seed{i}", arm=arm, protocol="fpn", seed=i, metrics={"bbox/AP": ap})
        for arm, aps in figures.items()
        for i, ap in enumerate(aps)
    ]
    return {arm: what for (arm, _, _), what in standings(cell_table(cells), METRICS, noise_ap).items()}


def test_the_highest_mean_is_the_best() -> None:
    assert found(a=[10.0, 10.1], b=[30.0, 30.1]) == {"b": "best"}


def test_an_arm_whose_seeds_overlap_the_best_ones_cannot_be_told_from_it() -> None:
    assert found(a=[27.1, 23.6, 25.0], b=[17.4, 27.4, 28.6], c=[1.0, 2.0, 1.5]) == {"a": "best", "b": "within noise"}


@pytest.mark.parametrize(("noise", "standing"), [(3.0, "within noise"), (1.0, None)])
def test_of_one_seed_the_stated_noise_decides(noise: float, standing: str | None) -> None:
    assert found(noise, a=[20.0], b=[22.0]).get("a") == standing


def test_of_one_seed_beside_several_their_spread_counts_where_it_is_larger() -> None:
    assert found(0.1, a=[20.0], b=[18.0, 24.0, 30.0])["a"] == "within noise"


def test_several_seeds_are_judged_by_welchs_t_and_not_by_the_stated_noise() -> None:
    assert found(9.0, a=[20.0, 20.1, 20.2], b=[22.0, 22.1, 22.2]) == {"b": "best"}


def test_seeds_without_any_spread_are_compared_as_they_are() -> None:
    assert found(a=[20.0, 20.0], b=[22.0, 22.0]) == {"b": "best"}


def test_arms_that_are_equal_share_the_first_place() -> None:
    assert found(a=[22.0, 22.0], b=[22.0, 22.0]) == {"a": "best", "b": "best"}
    assert found(a=[0.0], b=[0.0]) == {"a": "best", "b": "best"}


def test_one_arm_alone_is_not_the_best_of_anything() -> None:
    assert found(a=[20.0, 21.0]) == {}


def test_the_note_states_the_noise() -> None:
    assert "noise of 2 AP" in standing_note(2.0)
