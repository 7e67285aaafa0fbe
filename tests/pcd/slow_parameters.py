"""Parametrisations of which the quick suite keeps a few: each claim once for every kind, the rest marked slow."""

from collections.abc import Collection, Iterable
from typing import Any

import pytest

WORKER_THAT_RAISES = pytest.param(1, marks=pytest.mark.slow)
"""One worker, as a parameter: torch waits for five seconds, some time later, for one whose data set raised."""


def slow_but(quick: Collection[str], names: Iterable[str]) -> list[Any]:
    """`names` as parameters, in their order, all but `quick` marked slow."""
    kept = list(names)
    assert set(quick) <= set(kept), f"{set(quick) - set(kept)} is among no parameters"
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in kept]
