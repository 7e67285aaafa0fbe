"""Colours of figures: an arm has the same one wherever arms are told apart by colour."""

from collections.abc import Iterable
from typing import Any, Final

import matplotlib as mpl

__all__ = ["COLOURS", "arm_colours"]

COLOURS: Final = mpl.colormaps["tab10"].colors  # type: ignore[attr-defined]

_Colour = Any
_MANY: Final = mpl.colormaps["tab20"].colors  # type: ignore[attr-defined]


def arm_colours(arms: Iterable[str]) -> dict[str, _Colour]:
    """Arm to its colour, by the order of the table; above ten of them tab10's colours come with their light ones."""
    names = list(dict.fromkeys(arms))
    colours = COLOURS if len(names) <= len(COLOURS) else (*_MANY[::2], *_MANY[1::2])
    return {arm: colours[i % len(colours)] for i, arm in enumerate(names)}
