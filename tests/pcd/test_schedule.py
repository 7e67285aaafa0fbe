import pytest

from pcd.schedule import cosine_with_warmup, steps_with_warmup


def test_cosine_follows_its_literal_table() -> None:
    rates = [cosine_with_warmup(step, total=10, warmup=4, peak=8.0) for step in range(10)]
    # Four steps up in quarters of 8; then 4 * (1 + cos(pi * i / 6)) for i = 0 .. 5.
    assert rates == pytest.approx([2, 4, 6, 8, 8, 7.464102, 6, 4, 2, 0.535898], abs=1e-6)


def test_steps_follow_their_literal_table() -> None:
    rates = [steps_with_warmup(step, total=10, warmup=2, peak=1.0, decay_at=(0.6, 0.8)) for step in range(10)]
    assert rates == pytest.approx([0.5, 1, 1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01])


@pytest.mark.parametrize("factor", [0.1, 1])
def test_a_rise_from_a_factor_reaches_the_peak_behind_it(factor: float) -> None:
    risen = [steps_with_warmup(step, 10, 2, 1.0, (), factor) for step in range(3)]
    assert risen == pytest.approx([factor, (factor + 1) / 2, 1])
    assert [cosine_with_warmup(step, 10, 2, 1.0, factor) for step in range(3)] == pytest.approx(risen)


@pytest.mark.parametrize("warmup", [0, 1, 10])
def test_first_step_does_not_throw_its_gradient_away(warmup: int) -> None:
    assert cosine_with_warmup(0, total=100, warmup=warmup, peak=1.0) > 0


def test_warm_up_ends_at_the_peak() -> None:
    assert cosine_with_warmup(9, total=100, warmup=10, peak=3.0) == pytest.approx(3)


def test_cosine_ends_near_zero() -> None:
    assert 0 < cosine_with_warmup(999, total=1000, warmup=10, peak=1.0) < 1e-5


def test_cosine_never_rises_behind_the_warm_up() -> None:
    rates = [cosine_with_warmup(step, total=50, warmup=5, peak=1.0) for step in range(5, 50)]
    assert rates == sorted(rates, reverse=True)


def test_steps_without_decay_stay_at_the_peak() -> None:
    assert {steps_with_warmup(step, 20, 0, 0.5, ()) for step in range(20)} == {0.5}
