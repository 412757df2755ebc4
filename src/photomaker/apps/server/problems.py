"""Mistakes as problem+json (RFC 9457): the right status, one sentence, never a traceback."""

from __future__ import annotations

import errno
import logging
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from photomaker.checks import shown
from photomaker.errors import (
    Cancelled,
    IdentityError,
    NotThere,
    OutputError,
    PhotoError,
    PhotoMakerError,
    PromptError,
    QueueFull,
    SettingsError,
)

MEDIA = "application/problem+json"
STATUS: tuple[tuple[type[PhotoMakerError], int], ...] = (
    (NotThere, 404),
    (Cancelled, 409),
    (QueueFull, 429),
    (PhotoError, 422),
    (PromptError, 422),
    (IdentityError, 422),
    (SettingsError, 422),
    (OutputError, 507),
    (PhotoMakerError, 500),
)
"""What each kind of mistake is in HTTP; the first that fits."""
_INSIDE = "something went wrong inside; the server's log says what"
_WORDS = re.compile(r"(?<!^)(?=[A-Z])")
_log = logging.getLogger(__name__)


def problem(
    status: int, detail: str, kind: str = "", headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """An answer that says what was wrong.

    Args:
        status: Of HTTP.
        detail: One sentence.
        kind: What sort of mistake it is, for programs.
        headers: More of them.
    """
    body: dict[str, Any] = {
        "type": f"urn:photomaker:{kind}" if kind else "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": " ".join(detail.split()),
    }
    # where clients of the OpenAI routes look for the sentence
    body["error"] = {
        "message": body["detail"],
        "type": kind or "invalid_request",
        "code": None,
        "param": None,
    }
    return JSONResponse(body, status, dict(headers or {}), MEDIA)


def status_of(error: PhotoMakerError) -> int:
    """The status of a mistake."""
    return next(status for kind, status in STATUS if isinstance(error, kind))


def answer(error: PhotoMakerError) -> JSONResponse:
    """The answer to a mistake."""
    kind = _WORDS.sub("-", type(error).__name__).lower().removesuffix("-error")
    headers = {"Retry-After": str(error.retry_after)} if isinstance(error, QueueFull) else {}
    return problem(status_of(error), str(error), kind, headers)


def install(app: FastAPI) -> None:
    """Have an application answer every mistake this way."""

    async def ours(_: Request, error: Exception) -> Response:
        assert isinstance(error, PhotoMakerError)
        return answer(error)

    async def of_http(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return problem(error.status_code, str(error.detail), headers=error.headers)

    async def of_shape(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return problem(422, _first(error), "settings")

    async def gone(_: Request, __: Exception) -> Response:
        return Response(status_code=400)  # nobody is there to read it

    async def of_disk(request: Request, error: Exception) -> Response:
        assert isinstance(error, OSError)
        if isinstance(error, FileNotFoundError):
            return problem(404, "it was deleted at this moment; check its id", "not-there")
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            return await inside(request, error)
        return problem(507, "the server's disk is full; tell its operator, and try again later", "output")

    async def inside(_: Request, error: Exception) -> Response:
        _log.error("a request failed", exc_info=error)
        return problem(500, _INSIDE, "inside")

    app.add_exception_handler(PhotoMakerError, ours)
    app.add_exception_handler(HTTPException, of_http)
    app.add_exception_handler(RequestValidationError, of_shape)
    app.add_exception_handler(ClientDisconnect, gone)
    app.add_exception_handler(OSError, of_disk)
    app.add_exception_handler(Exception, inside)


def _first(error: RequestValidationError) -> str:
    """The first thing that is wrong, in one sentence."""
    found = error.errors()[0]
    name = ".".join(str(part) for part in found["loc"][1:]) or "the body"
    message = found["msg"][0].lower() + found["msg"][1:]
    if found["type"] == "missing":
        return f"{name} is missing; give it"
    if found["type"] == "json_invalid":
        return f"the body is no JSON: {found.get('ctx', {}).get('error', message)}"
    if found["type"] == "model_attributes_type":
        return "the body is no JSON object; send one, with Content-Type: application/json"
    return f"{name} is {shown(found['input'])}; {message}"
