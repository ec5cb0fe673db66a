"""Files of a project over http, and the command line of its servers."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from ml.inference.guard import READING

HOST: Final = "127.0.0.1"
IMAGES: Final = frozenset({".jpg", ".jpeg", ".png", ".webp"})


class ProjectFiles:
    """Gives out files of a project's stages and reports under one address, by their endings."""

    def __init__(
        self,
        app: ASGIApp,
        root: Path,
        url: str,
        shown: Set[str] = IMAGES,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Wrap an application.

        Args:
            app: the application; gets every other request.
            root: the project folder.
            url: beginning of the addresses, `/project`.
            shown: endings of the files that are given out.
            headers: further headers of the answers.
        """
        self._app, self._root, self._url = app, Path(root).resolve(), f"{url}/"
        self._shown = shown
        self._headers = {"X-Content-Type-Options": "nosniff", **(headers or {})}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with a file, or hand the request on."""
        if scope["type"] != "http" or not scope["path"].startswith(self._url):
            await self._app(scope, receive, send)
            return
        await self._answer(Request(scope))(scope, receive, send)

    def _answer(self, request: Request) -> Response:
        name = request.url.path.removeprefix(self._url)
        path = (self._root / request.scope["path"].removeprefix(self._url)).resolve()
        inside = any(self._root / part in path.parents for part in ("data", "reports"))
        if request.method not in READING or not inside or path.suffix.lower() not in self._shown:
            return PlainTextResponse(f"not shown of this project: {name}\n", 404)
        if not path.is_file():
            return PlainTextResponse(f"no file {name}; it was removed or made again\n", 404)
        return FileResponse(path, headers=self._headers)


def server_options(
    description: str | None, port: int, arguments: list[str] | None
) -> argparse.Namespace:
    """Parse the options of every server of a project: root, port, host.

    Args:
        description: what it serves.
        port: its port by default.
        arguments: those of the command line by default.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("root", type=Path, help="the project folder")
    parser.add_argument("--port", type=int, default=port)
    parser.add_argument("--host", default=HOST, help="0.0.0.0 in a container (%(default)s)")
    return parser.parse_args(arguments)


def serve(app: ASGIApp, options: argparse.Namespace) -> None:
    """Serve a guarded application until interrupted."""
    import uvicorn

    uvicorn.run(app, host=options.host, port=options.port, log_level="warning")
