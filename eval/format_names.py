"""What a stored AP table can be had as; without pandas, so that `pcd --help` can name it at once."""

from typing import Final

__all__ = ["FORMATS", "STORED"]

STORED: Final = {"csv": "results.csv", "json": "ap_table.json", "md": "ap_table.md"}
"""Formats that an aggregate stage leaves, and their files."""

FORMATS: Final = (*STORED, "latex")
"""All that eval.formats.table_as gives."""
