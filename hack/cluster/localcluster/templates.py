"""Renders the configuration files of config/ for the addresses and folders of layout."""

import string
from pathlib import Path

from localcluster import layout


def render(template: str) -> str:
    """Fill in `${NAME}` from layout; KeyError for a name that is not there."""
    return string.Template(template).substitute(layout.values())


def write_all() -> None:
    """Render every file of config/ into the state folder, touching only what changed."""
    for source in sorted(layout.CONFIG.rglob("*")):
        if not source.is_file():
            continue
        target = layout.RENDERED / source.relative_to(layout.CONFIG)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_if_changed(target, render(source.read_text()))


def write_if_changed(target: Path, content: str) -> None:
    """Write a file unless it has this content already."""
    if not target.exists() or target.read_text() != content:
        target.write_text(content)
