from collections.abc import Iterator

import pytest

from pcd.pace import Pace


class _Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    own = _Clock()
    monkeypatch.setattr("pcd.pace.time", own)
    return own


def test_batches_come_in_their_order() -> None:
    pace, batches = Pace(0), iter(range(5))
    assert [pace.wait_for(batches, 2) for _ in range(3)] == [[0, 1], [2, 3], [4]]


def test_waiting_is_told_apart_from_work(clock: _Clock) -> None:
    def slowly() -> Iterator[int]:
        while True:
            clock.now += 0.5
            yield 0

    pace = Pace(0)
    pace.wait_for(slowly(), 2)
    clock.now += 3
    assert pace.figures(1, 8)["waiting_for_data"] == 0.25


def test_images_are_those_of_the_steps_since_the_restart(clock: _Clock) -> None:
    pace = Pace(3)
    clock.now += 7
    pace.restart(5)
    clock.now += 2
    assert pace.figures(7, 8) == {"images_per_second": 8, "waiting_for_data": 0}
