"""Self-supervised teachers: a registry of published checkpoints, their fetching and their strict loading."""

from typing import TYPE_CHECKING, Any

from pcd.teachers.entry import TeacherEntry
from pcd.teachers.registry import TEACHERS

if TYPE_CHECKING:
    from pcd.teachers.load import Teacher, load_teacher

__all__ = ["TEACHERS", "Teacher", "TeacherEntry", "load_teacher"]


def __getattr__(name: str) -> Any:
    # Loading needs torch; who only reads the registry (a plan, a listing) does not wait for its import.
    if name in ("Teacher", "load_teacher"):
        from pcd.teachers import load

        return getattr(load, name)
    raise AttributeError(name)
