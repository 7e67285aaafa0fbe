"""Compressed masks, as pycocotools writes them and as nobody should."""

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from eval.datasets.run_lengths import run_lengths, why_no_mask


@pytest.mark.parametrize("share", [0.0, 0.001, 0.05, 0.5, 1.0])
@pytest.mark.parametrize("size", [(1, 1), (40, 30), (300, 1000)])
def test_runs_are_those_that_pycocotools_wrote(share: float, size: tuple[int, int]) -> None:
    mask = np.random.default_rng(3).random(size) < share  # (height, width)
    counts = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"].decode()
    runs = run_lengths(counts)
    assert runs is not None
    assert np.array_equal(np.repeat(np.arange(len(runs)) % 2, runs), mask.ravel(order="F"))
    assert why_no_mask(counts, *size) is None


FAULTS: dict[str, tuple[str | list[int], str]] = {
    "no character of it": ("0:n00000000Xo\u00e9", "no run lengths"),
    "a space": ("0: n00000000Xo0", "no run lengths"),
    "a number that goes on": ("0:n00000000Xo", "no run lengths"),
    "cut short": ("0:n00000000", "of 170 pixels, and its image 1200"),
    "nothing": ("", "of 0 pixels"),
    "nothing listed": ([], "of 0 pixels"),
    "less than nothing": ([-5, 1205], "a run of -5 pixels"),
    "less than nothing, compressed": ("KU6", "a run of -5 pixels"),
    "beyond what C counts": ([2**40, 1200 - 2**40], "a run of -"),
    "too many": ([1200, 1], "of 1201 pixels"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_is_no_mask_is_told(name: str) -> None:
    counts, words = FAULTS[name]
    assert words in str(why_no_mask(counts, 40, 30))
