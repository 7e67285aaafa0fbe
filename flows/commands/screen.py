"""Where the commands print their tables and trees."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["screen"]


def screen(pipe_width: int = 200, *, stderr: bool = False) -> "Console":
    """As wide as the terminal; a pipe has no width of its own, and nothing that a reader needs is to be cut there."""
    from rich.console import Console

    return Console(width=None if Console(stderr=stderr).is_terminal else pipe_width, highlight=False, stderr=stderr)
