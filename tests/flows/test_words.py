import pytest

from flows.words import duration, size


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (99, "99 s"), (100, "1.7 min"), (7199, "120.0 min"), (7200, "2.0 h"), (172_800, "2.0 d")],
)
def test_a_length_of_time_has_the_unit_in_which_it_reads_best(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("length", "words"),
    [(0, "0 B"), (999, "999 B"), (1_000, "1.0 kB"), (46_900_000, "46.9 MB"), (2.6e9, "2.6 GB")],
)
def test_a_length_of_data_has_the_unit_in_which_it_reads_best(length: float, words: str) -> None:
    assert size(length) == words
