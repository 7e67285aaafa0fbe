"""The page of a report: HTML with its pictures inside, for a browser that reaches no network."""

import base64
import struct
from pathlib import Path
from typing import Final

import jinja2

from eval.report.content import Report
from pcd.stage import write_text

__all__ = ["render_report", "write_report"]


_WORDS: Final = frozenset(
    ("figure", "against", "protocol", "of", "student", "beside", "initialisation", "recipe", "source")
)
"""Columns of tables of figures in which words stand."""


def render_report(content: Report) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    environment.globals["WORDS"] = _WORDS
    environment.filters |= {"data_uri": _data_uri, "png_size": _png_size}
    numbered: dict[str, str] = {}  # a stage that several cells share is told once: its key to its first cell
    for cell in content.cells:
        numbered |= {stage.key: cell.cell for stage in cell.stages if stage.key not in numbered}
    return environment.get_template("report.html.j2").render(report=content, first_cell=numbered)


def write_report(path: Path, content: Report) -> None:
    """Write the page; its folder is made. Raises OSError if that cannot be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, render_report(content))


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"


def _png_size(png: bytes) -> tuple[int, int]:
    """Width and height in pixels, so that nothing moves while the page is laid out."""
    width, height = struct.unpack(">II", png[16:24])
    return width, height
