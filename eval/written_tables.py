"""A table of text as it is written to files: in Markdown, and as an HTML page of several."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import jinja2
import pandas as pd

__all__ = ["as_markdown", "as_page"]


def as_markdown(shown: pd.DataFrame) -> str:
    """All values of `shown` are text. A bar in one of them would end its column, and is escaped."""
    escaped = shown.map(lambda text: text.replace("|", "\\|"))
    return str(escaped.to_markdown(index=False, disable_numparse=True))  # else "20.0" would be printed as 20


def as_page(title: str, tables: Iterable[tuple[str, pd.DataFrame]], notes: Sequence[str]) -> str:
    """A whole page: each table under its heading, and the notes below them."""
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True)
    return environment.get_template("ap_table.html.j2").render(title=title, tables=tables, notes=notes)
