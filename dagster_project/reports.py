"""Reports and Data Docs over http: `python -m dagster_project.reports`.

A server of its own, and so an origin of its own: these pages show names and texts that came with
the data, and nothing in them can reach Dagster.
"""

from __future__ import annotations

import html
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from dagster_project.guard import HOST, ProjectFiles, serve, server_options
from ml.inference.guard import guarded

PORT: Final = 3001
ADDRESS: Final = "VGGHEADS_REPORTS_ADDRESS"
"""Address of this server, for links to it; `vggheads ui` sets it."""
_URL: Final = "/files"
_SHOWN: Final = frozenset(
    {".html", ".css", ".md", ".csv", ".json", ".jpg", ".jpeg", ".png", ".webp", ".svg", ".pdf"}
)
_POLICY: Final = "default-src 'self' data: 'unsafe-inline'; connect-src 'none'; form-action 'none'"
_SECTIONS: Final = {
    "Checks": ("reports/data_docs/index.html",),
    "Results": ("reports/*/index.html", "data/*/report.html", "data/*/tables.html"),
    "Images by success and failure": ("data/**/gallery.html",),
}
"""Heading -> patterns of its pages; a page is listed under the first heading that matches."""
_TITLE: Final = re.compile(r"<title>([^<]*)</title>")
_HEAD_CHARS: Final = 2000
"""A page's title is searched in so many of its first characters."""
_STYLE: Final = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:46rem;margin:3rem auto;padding:0 1rem}"
    "small{color:#667}"
)


def report_url(name: str) -> str:
    """Return the address of a file of the project while `vggheads ui` is up.

    Args:
        name: its path, relative to the project folder.
    """
    return f"{os.environ.get(ADDRESS, f'http://{HOST}:{PORT}')}{_URL}/{quote(name)}"


def application(root: Path) -> ASGIApp:
    """Return the web application: a list of pages, and their files.

    Args:
        root: the project folder.
    """

    def listing(request: Request) -> HTMLResponse:
        text = "".join(_section(root, heading, names) for heading, names in _pages(root).items())
        text = text or "<p>There are none yet: <code>make demo</code>.</p>"
        return HTMLResponse(
            "<!doctype html><html lang=en><meta charset=utf-8><title>vggheads: reports</title>"
            f"<style>{_STYLE}</style><h1>Reports</h1>{text}"
        )

    inner = Starlette(routes=[Route("/", listing)])
    headers = {"Content-Security-Policy": _POLICY}
    return guarded(ProjectFiles(inner, root, _URL, _SHOWN, headers))


def _pages(root: Path) -> dict[str, list[str]]:
    """Return heading -> paths of its pages, relative to the project folder."""
    listed: dict[str, str] = {}
    for heading, patterns in _SECTIONS.items():
        for path in (path for pattern in patterns for path in sorted(root.glob(pattern))):
            # `reports/` has the same report with date, commit and machine.
            dated = root / "reports" / path.parent.name / "index.html"
            if path.name != "report.html" or not dated.exists():
                listed.setdefault(path.relative_to(root).as_posix(), heading)
    return {
        heading: names
        for heading in _SECTIONS
        if (names := [name for name, under in listed.items() if under == heading])
    }


def _section(root: Path, heading: str, names: Sequence[str]) -> str:
    items = "".join(
        f'<li><a href="{_URL}/{quote(name)}">{html.escape(_title(root / name))}</a>'
        f" <small>{html.escape(name)}</small></li>"
        for name in names
    )
    return f"<h2>{heading}</h2><ul>{items}</ul>"


def _title(path: Path) -> str:
    """Return a page's title, or its file name without one."""
    with path.open(encoding="utf-8", errors="replace") as page:
        found = _TITLE.search(page.read(_HEAD_CHARS))
    return html.unescape(found[1]) if found else path.name


def main(arguments: list[str] | None = None) -> int:
    """Serve until interrupted.

    Args:
        arguments: those of the command line by default.

    Returns:
        Exit status.
    """
    options = server_options(__doc__, PORT, arguments)
    serve(application(options.root), options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
