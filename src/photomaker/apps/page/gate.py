"""Access to the page: who may see it, and what it may load.

A browser cannot send a bearer token by itself, so the token is typed once and replaced by a signed cookie. A content
security policy forbids the page to load anything from other sites.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable
from html import escape
from time import time

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection, Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from photomaker.apps.page.style import LOGIN
from photomaker.apps.page.texts import say, spoken

COOKIE = "photomaker"
LASTS = 30 * 24 * 3600
"""Seconds that a cookie is valid; a restarted server asks again."""
LARGEST = 4096
"""Bytes of the form with the token."""
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; worker-src 'self' blob:; "
    "form-action 'self'; base-uri 'self'; object-src 'none'"
)
"""Gradio's scripts need inline code and eval; nothing needs another host."""


class Badge:
    """Signs and reads the cookie that replaces a token."""

    def __init__(self, owner_of: Callable[[str], str | None] | None) -> None:
        """Begin with a new key.

        Args:
            owner_of: Gives the owner of a token; None admits everybody.
        """
        self.owner_of, self._key = owner_of, secrets.token_bytes(32)

    def made(self, owner: str) -> str:
        """A cookie."""
        told = f"{owner}|{int(time()) + LASTS}"
        return f"{told}|{self._sign(told)}"

    def read(self, cookies: dict[str, str]) -> str | None:
        """The owner of a cookie; None if there is no valid one."""
        told, _, sign = cookies.get(COOKIE, "").rpartition("|")
        if not told or not secrets.compare_digest(sign.encode(), self._sign(told).encode()):
            return None
        owner, _, until = told.rpartition("|")
        return owner if int(until) > time() else None

    def _sign(self, told: str) -> str:
        return hmac.digest(self._key, told.encode(), hashlib.sha256).hex()


class Gate:
    """Protects the page; the other routes of the server have their own guard."""

    def __init__(self, app: ASGIApp, path: str, badge: Badge) -> None:
        """Protect everything under a path.

        Args:
            app: The application.
            path: Path of the page.
            badge: Checks the visitor.
        """
        self._app, self._path, self._badge = app, path, badge

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or ask for the token."""
        inside = scope["type"] in ("http", "websocket") and (scope["path"] + "/").startswith(f"{self._path}/")
        if not inside:
            await self._app(scope, receive, send)
            return
        send = _with_policy(send)
        if self._badge.owner_of is None or self._badge.read(HTTPConnection(scope).cookies) is not None:
            await self._app(scope, receive, send)
            return
        if scope["type"] == "http":
            answer = await self._asked(Request(scope, receive))
            await answer(scope, receive, send)

    async def _asked(self, request: Request) -> Response:
        if request.method == "GET" and "text/html" in request.headers.get("accept", ""):
            return _ask(request, wrong=False)
        if request.method != "POST" or not request.url.path.endswith("/enter"):
            return PlainTextResponse("this page needs a token", 401)
        if int(request.headers.get("content-length", LARGEST + 1)) > LARGEST:
            return PlainTextResponse("the form is too large", 413)
        given = (await request.form(max_files=0, max_fields=1)).get("token", "")
        assert self._badge.owner_of is not None
        owner = self._badge.owner_of(str(given).strip())
        if owner is None:
            return _ask(request, wrong=True)
        answer = RedirectResponse(f"{self._path}/", 303)
        secure = request.headers.get("x-forwarded-proto", request.url.scheme) == "https"
        answer.set_cookie(
            COOKIE, self._badge.made(owner), max_age=LASTS, httponly=True, samesite="strict", secure=secure
        )
        return answer


def _ask(request: Request, wrong: bool) -> Response:
    language = spoken(request.headers.get("accept-language", ""))
    values = {
        "language": language,
        "title": say(language, "title"),
        "ask": say(language, "token_ask"),
        "label": say(language, "token"),
        "enter": say(language, "enter"),
        "wrong": f'<p role="alert">{escape(say(language, "token_wrong"))}</p>' if wrong else "",
    }
    return HTMLResponse(LOGIN.format(**values), 401)


def _with_policy(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["Content-Security-Policy"] = _POLICY
            headers["Referrer-Policy"] = "same-origin"
        await send(message)

    return sending
