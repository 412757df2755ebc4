"""Errors as problem+json (RFC 9457): the right status, one sentence, never a traceback."""

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
"""The HTTP status of each kind of error; the first match counts."""
_INSIDE = "internal error; see the server's log"
_WORDS = re.compile(r"(?<!^)(?=[A-Z])")
_log = logging.getLogger(__name__)


def problem(
    status: int, detail: str, kind: str = "", headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """A response that describes an error.

    Args:
        status: HTTP status.
        detail: One sentence.
        kind: Kind of error, for programs.
        headers: Additional headers.
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
    """The status of an error."""
    return next(status for kind, status in STATUS if isinstance(error, kind))


def answer(error: PhotoMakerError) -> JSONResponse:
    """The response to an error."""
    kind = _WORDS.sub("-", type(error).__name__).lower().removesuffix("-error")
    headers = {"Retry-After": str(error.retry_after)} if isinstance(error, QueueFull) else {}
    return problem(status_of(error), str(error), kind, headers)


def install(app: FastAPI) -> None:
    """Make an application report every error this way."""

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
        return Response(status_code=400)  # the client is gone

    async def of_disk(request: Request, error: Exception) -> Response:
        assert isinstance(error, OSError)
        if isinstance(error, FileNotFoundError):
            return problem(404, "it was just deleted; check its id", "not-there")
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
    """The first error, in one sentence."""
    found = error.errors()[0]
    name = ".".join(str(part) for part in found["loc"][1:]) or "the body"
    message = found["msg"][0].lower() + found["msg"][1:]
    if found["type"] == "missing":
        return f"{name} is missing; give it"
    if found["type"] == "json_invalid":
        return f"the body is not JSON: {found.get('ctx', {}).get('error', message)}"
    if found["type"] == "model_attributes_type":
        return "the body is not a JSON object; send one, with Content-Type: application/json"
    return f"{name} is {shown(found['input'])}; {message}"
