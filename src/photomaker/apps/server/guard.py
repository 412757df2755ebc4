"""Checks before every route: refuses bodies that are too large and requests from other web sites in a browser.

It is plain ASGI, so that a body is refused while it arrives, before it is stored.
"""

from __future__ import annotations

from collections.abc import Container
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from photomaker.apps.server.problems import problem

TAIL = 128
"""Last bytes of a body that are kept: a multipart boundary has at most 70."""
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)


class Guard:
    """Refuses requests before they are read."""

    def __init__(self, app: ASGIApp, uploads: int, plain: int, hosts: Container[str] | None) -> None:
        """Protect an application.

        Args:
            app: The application.
            uploads: Most bytes of a multipart body.
            plain: Most bytes of any other body.
            hosts: Accepted host names; None is any.
        """
        self._app, self._uploads, self._plain, self._hosts = app, uploads, plain, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        most = self._most(headers)
        refused = self._foreign(headers) or _too_large(headers, most)
        if refused is not None:
            await refused(scope, receive, send)
            return
        body = _Body(receive, most)
        scope["photomaker.body"] = body
        unread = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
        await self._app(scope, body.receive, _with_headers(send, body if unread else None))

    def _most(self, headers: Headers) -> int:
        form = headers.get("content-type", "").lower().startswith("multipart/")
        return self._uploads if form else self._plain

    def _foreign(self, headers: Headers) -> ASGIApp | None:
        """Refuse requests that a foreign site makes in a local browser, by DNS rebinding or by a form."""
        host, origin = headers.get("host", ""), headers.get("origin")
        name = urlsplit(f"//{host}").hostname or ""
        if self._hosts is not None and name not in self._hosts:
            return problem(403, f"the host name {name[:60]!r} is not accepted; use 127.0.0.1 or localhost")
        if origin is not None and urlsplit(origin).netloc != host:
            return problem(403, f"requests from pages of {origin[:60]!r} are refused")
        return None


def _too_large(headers: Headers, most: int) -> ASGIApp | None:
    told = headers.get("content-length", "")
    return _large(most) if told.isascii() and told.isdigit() and int(told) > most else None


def _large(most: int) -> ASGIApp:
    return problem(413, _sentence(most), "too-large", {"Connection": "close"})


def _sentence(most: int) -> str:
    return f"the request has more than {most / 2**20:.3g} MB; send fewer or smaller photos"


class _Body:
    """A body as it arrives: stopped if it is longer than stated, or too long without a stated length; keeps its end."""

    def __init__(self, receive: Receive, most: int) -> None:
        self._receive, self._most = receive, most
        self._seen = 0
        self.tail = b""
        self.whole = False

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            part = message.get("body", b"")
            self._seen += len(part)
            self.tail = (self.tail + part[-TAIL:])[-TAIL:]
            self.whole = not message.get("more_body", False)
            if self._seen > self._most:
                raise HTTPException(413, _sentence(self._most))
        return message


def _with_headers(send: Send, body: _Body | None) -> Send:
    """Add headers; close the connection if the response comes before the body was read."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            closing = () if body is None or body.whole else ((b"connection", b"close"),)
            message["headers"] = [*message.get("headers", ()), *_HEADERS, *closing]
        await send(message)

    return sending
