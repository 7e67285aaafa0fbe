import pytest

from eval.chance import may_be_chance, seed_interval


def test_the_interval_is_welchs_worked_by_hand() -> None:
    # Means 12 and 9, variances 1 and 4 over three seeds each: se = sqrt(5/3), 2.94 degrees of freedom, t = 3.22.
    ends = seed_interval([11.0, 12.0, 13.0], [7.0, 9.0, 11.0])
    assert ends == pytest.approx((3 - 4.157, 3 + 4.157), abs=0.01)


@pytest.mark.parametrize(("of", "against"), [([1.0], [2.0, 3.0]), ([2.0, 2.0], [3.0, 3.0])])
def test_of_one_seed_or_of_seeds_without_spread_there_is_no_interval(of: list[float], against: list[float]) -> None:
    assert seed_interval(of, against) is None


def test_two_draws_of_one_spread_may_be_chance_in_both_directions() -> None:
    assert may_be_chance([10.0, 12.0, 14.0], [11.0, 13.0, 15.0], noise_ap=0.1)
    assert may_be_chance([11.0, 13.0, 15.0], [10.0, 12.0, 14.0], noise_ap=0.1)


def test_means_far_apart_are_no_chance_whatever_noise_is_stated() -> None:
    assert not may_be_chance([10.0, 10.1, 10.2], [20.0, 20.1, 20.2], noise_ap=50)
    assert not may_be_chance([20.0, 20.1, 20.2], [10.0, 10.1, 10.2], noise_ap=50)


@pytest.mark.parametrize(("noise", "chance"), [(3.0, True), (1.0, False)])
def test_of_one_seed_each_the_stated_noise_decides(noise: float, chance: bool) -> None:
    assert may_be_chance([20.0], [22.0], noise) is chance
    assert may_be_chance([22.0], [20.0], noise) is chance


def test_seeds_without_spread_are_compared_as_they_are() -> None:
    assert may_be_chance([2.0, 2.0], [2.0, 2.0], noise_ap=1)
    assert not may_be_chance([2.0, 2.0], [2.5, 2.5], noise_ap=1)
