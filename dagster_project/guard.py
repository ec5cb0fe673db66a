"""What stands before a web server on this machine: pages of other origins may not use it.

Any page in the user's browser can send requests to 127.0.0.1, and Dagster answers all of them,
mutations by GET among them. Starlette's `TrustedHostMiddleware` refuses foreign names of the host;
`SameOrigin` refuses foreign pages.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

HOST: Final = "127.0.0.1"
ALLOWED_HOSTS: Final = ("127.0.0.1", "localhost", "[::1]")
_READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_FOREIGN: Final = frozenset({"cross-site", "same-site"})
"""Fetch metadata of pages on another host or port; a form on such a page sends no Origin."""
IMAGES: Final = frozenset({".jpg", ".jpeg", ".png", ".webp"})


class SameOrigin:
    """Lets through what comes from the server's own pages, or from no page at all."""

    def __init__(self, app: ASGIApp, hosts: Sequence[str] = ALLOWED_HOSTS) -> None:
        """Wrap an application.

        Args:
            app: the application.
            hosts: names under which its own pages are opened, without port.
        """
        self._app, self._hosts = app, frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or refuse with 403 or 405."""
        if scope["type"] == "http" and (refusal := self._refusal(scope)):
            await refusal(scope, receive, send)
        elif scope["type"] == "websocket" and self._is_foreign(Headers(scope=scope)):
            await send({"type": "websocket.close", "code": 1008, "reason": "foreign origin"})
        else:
            await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        reading = scope["method"] in _READING
        if scope["path"].endswith("/graphql") and reading and b"query=" in scope["query_string"]:
            return PlainTextResponse("GraphQL is answered by POST only\n", 405, {"Allow": "POST"})
        if self._is_foreign(headers):
            return PlainTextResponse("refused: sent by a page of another origin\n", 403)
        if not reading and headers.get("sec-fetch-site") in _FOREIGN:
            return PlainTextResponse("refused: sent by a page of another site\n", 403)
        return None

    def _is_foreign(self, headers: Headers) -> bool:
        """Return whether a page of another scheme, host or port sent a request."""
        origin = headers.get("origin")
        if origin is None:
            return False
        parts = urlsplit(origin)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        return host not in self._hosts or parts.netloc != headers.get("host")


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
        if request.method not in _READING or not inside or path.suffix.lower() not in self._shown:
            return PlainTextResponse(f"not shown of this project: {name}\n", 404)
        if not path.is_file():
            return PlainTextResponse(f"no file {name}; it was removed or made again\n", 404)
        return FileResponse(path, headers=self._headers)


def guarded(app: ASGIApp, hosts: Sequence[str] = ALLOWED_HOSTS) -> ASGIApp:
    """Return an application behind the guard.

    Args:
        app: the application.
        hosts: names under which it may be addressed, without port.

    Returns:
        The application to serve.
    """
    return TrustedHostMiddleware(
        SameOrigin(app, hosts), allowed_hosts=list(hosts), www_redirect=False
    )


def server_options(
    description: str | None, port: int, arguments: list[str] | None
) -> argparse.Namespace:
    """Parse what every server of a project is told: root, port, host.

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
