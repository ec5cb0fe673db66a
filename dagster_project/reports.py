"""Reports and Data Docs over http: `python -m dagster_project.reports`.

A server of its own, and so an origin of its own: these pages show names and texts that came with
the data, and nothing in them can reach Dagster.
"""

from __future__ import annotations

import html
import os
import sys
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
_PAGES: Final = ("data/*/report.html", "data/*/gallery.html", "reports/**/index.html")
_STYLE: Final = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:46rem;margin:3rem auto;padding:0 1rem}"
)


def report_url(name: str) -> str:
    """Return the address of a file of the project while `vggheads ui` is up.

    Args:
        name: its path, relative to the project folder.
    """
    return f"{os.environ.get(ADDRESS, f'http://{HOST}:{PORT}')}{_URL}/{quote(name)}"


def application(root: Path) -> ASGIApp:
    """Return what is served: a list of the pages there are, and their files.

    Args:
        root: the project folder.
    """

    def listing(request: Request) -> HTMLResponse:
        found = sorted({path for pattern in _PAGES for path in root.glob(pattern)})
        # Of Data Docs, the page that links all suites.
        names = [
            path.relative_to(root).as_posix()
            for path in found
            if path.parents[1].name != "data_docs"
        ]
        links = "".join(
            f'<li><a href="{_URL}/{quote(name)}">{html.escape(name)}</a></li>' for name in names
        )
        text = (
            f"<ul>{links}</ul>" if names else "<p>There are none yet: <code>make demo</code>.</p>"
        )
        return HTMLResponse(
            "<!doctype html><html lang=en><meta charset=utf-8><title>vggheads: reports</title>"
            f"<style>{_STYLE}</style><h1>Reports</h1>{text}"
        )

    inner = Starlette(routes=[Route("/", listing)])
    headers = {"Content-Security-Policy": _POLICY}
    return guarded(ProjectFiles(inner, root, _URL, _SHOWN, headers))


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
