"""The profiles' names in help texts, which must not wait for all that loading one imports."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

__all__ = ["PROFILE_NAMES", "with_profile_names"]

_Command = TypeVar("_Command", bound=Callable[..., Any])

PROFILE_NAMES: Final = tuple(sorted(path.stem for path in (Path(__file__).parents[1] / "profiles").glob("*.yaml")))


def with_profile_names(command: _Command) -> _Command:
    """Put them in the place of PROFILE_NAMES in the docstring of a command, which becomes its help."""
    command.__doc__ = (command.__doc__ or "").replace("PROFILE_NAMES", ", ".join(PROFILE_NAMES))
    return command
