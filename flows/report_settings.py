"""The settings of a benchmark as its report shows them: flat, each with its value and on whose word that rests."""

import json
from collections.abc import Mapping
from typing import Any, Final

from pydantic import ValidationError

from eval.report.content import Setting
from flows.settings import Benchmark
from pcd.errors import PCDError
from pcd.flat import flatten
from pcd.settings import flat_settings

__all__ = ["report_settings"]

_UNMARKED: Final = "–"
_GROUPS: Final = {
    "Benchmark": "", "Pre-training": "pretrain.", "Protocols": "protocols.",
    "How machines ran it; changes no result": "runtime.",
}  # fmt: skip
_HAVE_MARKS: Final = ("pretrain.", "protocols.")
_MARKED: Final = ("teacher", "noise_ap")
"""Those of the benchmark's own that stand for a choice of method."""


def report_settings(recorded: Mapping[str, Any]) -> tuple[dict[str, tuple[Setting, ...]], list[str]]:
    """Title of a group to its settings, and a line for what is not known of them.

    Args:
        recorded: a benchmark's settings as its record has them, maybe by an earlier version of this package.
    """
    if not recorded:
        return {}, ["The settings: the benchmark's record does not name them."]
    lost = []
    try:
        flat = flat_settings(Benchmark.model_validate(dict(recorded)))
        settings = [
            Setting(name=name, value=_text(value), mark=_mark(name, mark)) for name, (value, mark) in flat.items()
        ]
    except (ValidationError, PCDError):
        settings = [Setting(name=name, value=_text(value), mark=_UNMARKED) for name, value in flatten(recorded).items()]
        lost.append("The marks of the settings: they are those of another version.")
    grouped: dict[str, list[Setting]] = {title: [] for title in _GROUPS}
    for setting in settings:
        title = max((t for t in _GROUPS if setting.name.startswith(_GROUPS[t])), key=lambda t: len(_GROUPS[t]))
        grouped[title].append(setting)
    return {title: tuple(of) for title, of in grouped.items() if of}, lost


def _mark(name: str, mark: str) -> str:
    return mark if name.startswith(_HAVE_MARKS) or name in _MARKED else _UNMARKED


def _text(value: Any) -> str:
    """As `--set` takes it."""
    return value if isinstance(value, str) else json.dumps(value, default=str)
