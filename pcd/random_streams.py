"""Streams of random numbers that any process can open at any place: Philox, keyed by seed, counted by what is drawn.

So views and orders depend neither on the number of workers and ranks nor on what was drawn before, a run resumes at any
step, and no two streams overlap (a counter-based generator has one block of numbers for each counter).
"""

from typing import Final

import numpy as np

__all__ = ["order_stream", "view_stream"]

_VIEWS: Final = 0
_ORDER: Final = 1


def view_stream(seed: int, epoch: int, image: int, view: int) -> np.random.Generator:
    """Of one view (1 or 2) of one image in one epoch."""
    return np.random.Generator(np.random.Philox(key=[seed, _VIEWS], counter=[0, view, image, epoch]))


def order_stream(seed: int, epoch: int) -> np.random.Generator:
    """Of the order in which an epoch meets the images."""
    return np.random.Generator(np.random.Philox(key=[seed, _ORDER], counter=[0, 0, 0, epoch]))
