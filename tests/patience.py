"""How long tests wait for what comes soon as a rule."""

from typing import Final

PATIENCE: Final = 900
"""Seconds until a wait counts as a hang. No claim: a machine that is ten times slower, or busy, passes all the same."""
