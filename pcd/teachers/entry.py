"""What the registry knows of one teacher."""

from dataclasses import asdict, dataclass
from typing import Any

from pcd.layouts import HeadLayout, TrunkLayout

__all__ = ["TeacherEntry"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherEntry:
    """A published checkpoint: where it is, what it may be used for, and how it is laid out."""

    name: str
    title: str
    url: str
    sha256: str | None
    """None: the publisher names none."""
    size_bytes: int | None
    licence: str
    noncommercial: bool
    top_key: str
    """Key of the file's dictionary under which the tensors are."""
    trunk_prefix: str
    """What stands before the trunk's tensor names."""
    head_prefix: str
    """What stands before the head's, behind `trunk_prefix`."""
    trunk: TrunkLayout
    head: HeadLayout
    accuracy: str
    """Published accuracy, with the branch it measures."""
    source: str
    unverified: tuple[str, ...] = ()
    """Facts that stand here without having been seen in the file itself."""

    def describe(self) -> dict[str, Any]:
        """As plain JSON data."""
        return asdict(self)
