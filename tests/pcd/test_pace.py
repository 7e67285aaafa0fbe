import itertools
import time
from collections.abc import Iterator

import pytest

from pcd.pace import Pace


def _slowly() -> Iterator[int]:
    for number in itertools.count():
        time.sleep(0.05)
        yield number


def test_batches_come_in_their_order() -> None:
    pace, batches = Pace(0), iter(range(5))
    assert [pace.wait_for(batches, 2) for _ in range(3)] == [[0, 1], [2, 3], [4]]


def test_waiting_is_told_apart_from_work() -> None:
    pace = Pace(0)
    pace.wait_for(_slowly(), 2)
    time.sleep(0.1)
    assert pace.figures(1, 8)["waiting_for_data"] == pytest.approx(0.5, abs=0.25)


def test_images_are_those_of_the_steps_since_the_restart() -> None:
    pace = Pace(3)
    time.sleep(0.1)
    pace.restart(5)
    time.sleep(0.2)
    figures = pace.figures(7, 8)
    assert figures["waiting_for_data"] == 0
    assert figures["images_per_second"] == pytest.approx(2 * 8 / 0.2, rel=0.25)
