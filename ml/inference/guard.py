"""Guard of a local web server: rejects requests from pages of other origins.

Any page in the user's browser can send requests to 127.0.0.1, and servers that are made for one
user answer all of them: Dagster also mutations by GET, gradio uploads. Starlette's
`TrustedHostMiddleware` refuses foreign names of the host; `SameOrigin` refuses foreign pages.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from urllib.parse import unquote, urlsplit

from starlette.datastructures import Headers
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

ALLOWED_HOSTS: Final = ("127.0.0.1", "localhost", "[::1]")
READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_FOREIGN: Final = frozenset({"cross-site", "same-site"})
"""Fetch metadata of pages on another host or port; a form on such a page sends no Origin."""
_ANY: Final = "*"


class SameOrigin:
    """Accepts requests from the server's own pages, or from no page at all."""

    def __init__(self, app: ASGIApp, hosts: Sequence[str] = ALLOWED_HOSTS) -> None:
        """Wrap an application.

        Args:
            app: the application.
            hosts: names under which its own pages are opened, without port; `*` for any.
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
        reading, graphql = scope["method"] in READING, _is_graphql(scope["path"])
        # Dagster's page sends queries by POST. What a server reads from a query string depends on
        # how it decodes names, so none is let through.
        if graphql and reading and scope["query_string"]:
            return PlainTextResponse("GraphQL is answered by POST only\n", 405, {"Allow": "POST"})
        if self._is_foreign(headers):
            return PlainTextResponse("refused: sent by a page of another origin\n", 403)
        if (graphql or not reading) and headers.get("sec-fetch-site") in _FOREIGN:
            return PlainTextResponse("refused: sent by a page of another site\n", 403)
        return None

    def _is_foreign(self, headers: Headers) -> bool:
        """Return whether a page of another host or port sent a request."""
        origin = headers.get("origin")
        if origin is None:
            return False
        parts = urlsplit(origin)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        known = host in self._hosts or _ANY in self._hosts
        return not known or parts.netloc != headers.get("host")


def _is_graphql(path: str) -> bool:
    """Return whether a path, in any notation, ends in `graphql`."""
    parts = [part for part in unquote(path).lower().split("/") if part]
    return parts[-1:] == ["graphql"]


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
