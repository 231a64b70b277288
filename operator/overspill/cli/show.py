"""Printing: JSON for programs, plain tables for people, colour only on a terminal."""

import csv
import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any


def as_json(value: Any) -> None:
    """Print a value as JSON on standard output."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def csv_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows as CSV on standard output; a cell of None is empty."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)


def line(text: str = "") -> None:
    """Print one line on standard output."""
    sys.stdout.write(text + "\n")


def note(text: str) -> None:
    """Print one line on standard error, which no program reads as the result."""
    sys.stderr.write(text + "\n")


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table on standard output; colours and widths fit the terminal.

    :param header: column titles.
    :param rows: cells, which may hold rich's markup in their style column.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=None, pad_edge=False, header_style="bold")
    for title in header:
        grid.add_column(title.upper(), overflow="fold")
    for row in rows:
        grid.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    # Not a terminal: one row a line, whatever its length, so that grep finds it.
    width = None if sys.stdout.isatty() else 1000
    Console(width=width, highlight=False).print(grid)


_STYLES = {"ok": "green", "warning": "yellow", "failed": "red"}
