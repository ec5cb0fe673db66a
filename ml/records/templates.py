"""The one way in which pages and tables are filled in from templates."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment


def template_environment(folder: Path) -> Environment:
    """Return what reads the templates of a folder.

    A name without a value is an error, and what goes into `*.html.jinja` is escaped.

    Args:
        folder: the folder of the templates.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

    return Environment(
        loader=FileSystemLoader(folder),
        undefined=StrictUndefined,
        autoescape=select_autoescape(["html.jinja"]),
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
