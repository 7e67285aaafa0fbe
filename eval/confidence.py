"""How sure every interval, spread and mark of a table is."""

from typing import Final

__all__ = ["CONFIDENCE"]

CONFIDENCE: Final = 0.95
