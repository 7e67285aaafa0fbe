"""What a benchmark's report says, as plain data; eval.report.page makes the page of it."""

from dataclasses import dataclass

__all__ = ["CellReport", "Figure", "Report", "Setting", "StageReport", "Table"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    heading: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    """As text, as many as there are columns; the first one names the row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    name: str
    """Unique in its report, of letters, digits and hyphens: it becomes an address inside the page."""
    heading: str
    caption: str
    """What to see in it."""
    alt: str
    """Its main figures in words."""
    png: bytes
    command: str
    """That drew it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    name: str
    """Dotted, as `--set` takes it."""
    value: str
    mark: str
    """abstract, code or ours; a dash where the project has no word on it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageReport:
    """One of the stages that a cell comes from."""

    stage: str
    key: str
    command: str
    """As it was started; empty if it is no longer in the store."""
    differs: str
    """What of its environment is not as that of the benchmark; empty if all is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CellReport:
    cell: str
    figures: str
    trace: str
    """The command that walks back from its figures."""
    stages: tuple[StageReport, ...]
    """In the order in which they ran."""
    hole: str = ""
    """Why it has no figures, if it has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    title: str
    facts: dict[str, str]
    """What stands below the title: name to value."""
    missing: tuple[str, ...]
    """A line for each thing that should stand here and that the store no longer has, or has otherwise."""
    tables: tuple[Table, ...]
    notes: tuple[str, ...]
    """Under the tables."""
    figures: tuple[Figure, ...]
    cells: tuple[CellReport, ...]
    settings: dict[str, tuple[Setting, ...]]
    """Title of a group to its settings."""
    environment: dict[str, str]
