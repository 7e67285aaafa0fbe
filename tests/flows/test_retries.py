import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.retries import Attempts
from pcd.errors import PCDError, StageFailedError, StageStoppedError

FAILED = StageFailedError("killed")


def test_a_first_failure_is_worth_another_attempt_also_without_a_checkpoint() -> None:
    assert Attempts(1).worth_another(FAILED, None)


def test_a_second_failure_at_the_same_step_is_not() -> None:
    attempts = Attempts(9)
    assert [attempts.worth_another(FAILED, step) for step in (None, 0)] == [True, False]
    attempts = Attempts(9)
    assert [attempts.worth_another(FAILED, step) for step in (40, 40)] == [True, False]


def test_a_failure_further_on_is() -> None:
    attempts = Attempts(9)
    assert [attempts.worth_another(FAILED, step) for step in (None, 40, 80)] == [True, True, True]


@pytest.mark.parametrize(
    "error",
    [PCDError("mend it"), StageStoppedError("stopped"), KeyboardInterrupt()],
    ids=lambda error: type(error).__name__,
)
def test_what_the_user_has_to_mend_or_has_stopped_is_not(error: BaseException) -> None:
    assert not Attempts(9).worth_another(error, 40)


@given(st.integers(0, 5), st.lists(st.none() | st.integers(0, 100), max_size=20))
def test_attempts_never_exceed_their_count(limit: int, steps: list[int | None]) -> None:
    attempts = Attempts(limit)
    assert sum(attempts.worth_another(FAILED, step) for step in steps) <= limit
