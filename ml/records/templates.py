"""The one way in which pages and tables are filled in from templates."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment


def template_environment(folder: Path) -> Environment:
    """Return the template environment of a folder.

    An undefined name is an error, and values in `*.html.jinja` are escaped.

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
