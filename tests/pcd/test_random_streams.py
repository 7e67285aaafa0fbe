from collections.abc import Callable

import numpy as np
import pytest

from pcd.random_streams import order_stream, view_stream

STREAMS: list[Callable[[], np.random.Generator]] = [
    lambda: view_stream(0, 0, 0, 1),
    lambda: view_stream(1, 0, 0, 1),
    lambda: view_stream(0, 1, 0, 1),
    lambda: view_stream(0, 0, 1, 1),
    lambda: view_stream(0, 0, 0, 2),
    lambda: order_stream(0, 0),
    lambda: order_stream(1, 0),
    lambda: order_stream(0, 1),
]


def test_streams_of_different_places_share_no_number() -> None:
    numbers = [number for stream in STREAMS for number in stream().random(100)]
    assert len(set(numbers)) == len(numbers)


@pytest.mark.parametrize("number", range(len(STREAMS)))
def test_a_stream_is_the_same_whenever_it_is_opened(number: int) -> None:
    assert np.array_equal(STREAMS[number]().random(5), STREAMS[number]().random(5))
