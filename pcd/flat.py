"""Nested settings on one level, so that they can be compared and shown one by one."""

from collections.abc import Mapping
from typing import Any

__all__ = ["flatten"]


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted names to values. A group without settings stands under its own name as what it is, so none gets lost."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) and value else {prefix + name: value}
    return flat
