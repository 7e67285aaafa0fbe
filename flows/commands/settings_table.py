"""Every setting of the method and of the fine-tuning: default, meaning, bounds, and on whose word the default rests."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from rich import box
from rich.table import Table
from rich.text import Text

from eval.finetune_settings import FinetuneSettings
from eval.probes.settings import KnnSettings, LinearSettings, LowShotSettings
from flows.commands.screen import screen
from flows.settings import Benchmark, Runtime
from pcd.settings import PretrainSettings

__all__ = ["SettingRow", "as_markdown", "list_settings", "print_settings"]


@dataclass(frozen=True, slots=True)
class SettingRow:
    name: str
    """As `--set` takes it."""
    default: str
    mark: str
    """abstract, code or ours; "-" for what changes no result."""
    meaning: str


_ELSEWHERE: Final = {"protocols", "pretrain", "runtime", "name"}
"""Fields of the benchmark that are groups of their own, or have no default."""

_GROUPS: tuple[tuple[str, str, type[BaseModel]], ...] = (
    ("Benchmark", "", Benchmark),
    ("Pre-training", "pretrain.", PretrainSettings),
    ("Fine-tuning, for each protocol", "protocols.NAME.", FinetuneSettings),
    ("Linear probe, for each protocol of its kind", "protocols.NAME.", LinearSettings),
    ("kNN probe, for each protocol of its kind", "protocols.NAME.", KnnSettings),
    ("Low-shot probe, for each protocol of its kind", "protocols.NAME.", LowShotSettings),
    ("How machines run it; changes no result", "runtime.", Runtime),
)

_INTRODUCTION = """\
# Every setting

Written by `pcd settings --markdown`; a test holds the two together. The mark says where a default comes from:
`abstract` (the abstract of arXiv 2211.00218), `code` (the authors' released code, allo-rene/pcd@6b0ad4d) or `ours`
(neither says). A value that a profile changes counts as ours; the notes under an AP table list what it rests on.
"""


def list_settings() -> dict[str, list[SettingRow]]:
    """Title of a group to its rows, in the order of the models."""
    return {title: list(_rows(model, prefix)) for title, prefix, model in _GROUPS}


def as_markdown() -> str:
    parts = [_INTRODUCTION]
    for title, rows in list_settings().items():
        lines = [f"| `{r.name}` | `{r.default}` | {r.mark} | {r.meaning} |" for r in rows]
        parts.append(
            "\n".join([f"## {title}\n", "| setting | default | mark | meaning |", "|---|---|---|---|", *lines, ""])
        )
    return "\n".join(parts)


def print_settings() -> None:
    console = screen(160)
    for title, rows in list_settings().items():
        table = Table(title=title, box=box.SIMPLE, title_justify="left")
        for column in ("setting", "default", "mark", "meaning"):
            table.add_column(column, no_wrap=column == "setting")
        for row in rows:
            table.add_row(row.name, row.default, row.mark, Text(row.meaning))
        console.print(table)


def _rows(model: type[BaseModel], prefix: str) -> Iterator[SettingRow]:
    for name, field in model.model_fields.items():
        if model is Benchmark and name in _ELSEWHERE:
            continue
        if isinstance(field.default, BaseModel):
            yield from _rows(type(field.default), f"{prefix}{name}.")
        else:
            extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
            default = _text(field.default)
            yield SettingRow(prefix + name, default, str(extra.get("mark", "–")), _meaning(field))


def _meaning(field: FieldInfo) -> str:
    choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    return (field.description or "").replace("|", "\\|") + (f" ({', '.join(map(str, choices))})" if choices else "")


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(_text(part) for part in value) + "]"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)
