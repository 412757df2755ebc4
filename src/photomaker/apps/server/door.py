"""What every route needs: the desk, the caller, and uploaded files."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Annotated

import anyio
from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from photomaker.apps.server.metrics import Metrics
from photomaker.apps.server.tokens import LOCAL, Tokens
from photomaker.errors import QueueFull
from photomaker.studio.desk.desk import Desk
from photomaker.studio.desk.records import Upload

LOOKING = 2
"""Requests whose photos are decoded at the same time."""
FIELDS = 64
"""Fields of a form that are not files."""
BESIDE = 8
"""Most files of a form besides photos: start picture, mask and so on."""
_bearer = HTTPBearer(auto_error=False, description="A token of the server; not needed if it has no tokens.")


@dataclass(frozen=True)
class ServerSettings:
    """Access to the server.

    Attributes:
        tokens: The tokens; None admits everybody, as one owner.
        hosts: Accepted host names, against sites whose name points at this machine (DNS rebinding); None is any.
        plain_bytes: Most bytes of a body that is not multipart.
        waiting: Most callers that may wait for their photos to be checked.
    """

    tokens: Tokens | None = None
    hosts: frozenset[str] | None = frozenset({"127.0.0.1", "localhost", "::1"})
    plain_bytes: int = 1 << 20
    waiting: int = 64


@dataclass(frozen=True)
class Door:
    """State shared by the routes."""

    desk: Desk
    settings: ServerSettings
    metrics: Metrics
    _looking: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(LOOKING))

    @asynccontextmanager
    async def looking(self) -> AsyncIterator[None]:
        """Wait for a turn to decode and check photos, which takes memory.

        Raises:
            QueueFull: Too many are waiting.
        """
        waiting = self._looking.statistics().tasks_waiting
        if waiting >= self.settings.waiting:
            raise QueueFull(
                f"{waiting} callers are waiting for their photos to be checked; try again in 10 s", 10
            )
        async with self._looking:
            yield


def _door(request: Request) -> Door:
    door: Door = request.app.state.door
    return door


TheDoor = Annotated[Door, Depends(_door)]
Given = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


def known_owner(door: TheDoor, given: Given) -> str | None:
    """The owner of a request; None if unknown."""
    if door.settings.tokens is None:
        return LOCAL
    return None if given is None else door.settings.tokens.owner(given.credentials)


def _owner(owner: Annotated[str | None, Depends(known_owner)]) -> str:
    if owner is None:
        raise no_token()
    return owner


def no_token() -> HTTPException:
    """The response to unknown callers."""
    return HTTPException(
        401, "this server needs a token: Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer"}
    )


Owner = Annotated[str, Depends(_owner)]
MaybeOwner = Annotated[str | None, Depends(known_owner)]


@dataclass(frozen=True)
class Form:
    """A multipart form.

    Attributes:
        files: Files by field name, in order.
        fields: The other fields; the last of several with the same name.
    """

    files: dict[str, list[Upload]]
    fields: dict[str, str]


async def read_form(request: Request, door: Door) -> Form:
    """The form of a request.

    Raises:
        HTTPException: There is none, it is malformed, or it has too many parts.
    """
    if not is_form(request):
        kind = request.headers.get("content-type", "nothing")
        raise HTTPException(415, f"the body is {kind[:60]}; send multipart/form-data")
    most = door.desk.limits.photos + BESIDE
    files: dict[str, list[Upload]] = {}
    fields: dict[str, str] = {}
    async with request.form(
        max_files=most, max_fields=FIELDS, max_part_size=door.settings.plain_bytes
    ) as form:
        _check_end(request)
        for name, value in form.multi_items():
            if isinstance(value, UploadFile):
                files.setdefault(name, []).append(Upload(value.filename or name, await value.read()))
            else:
                fields[name] = value
    return Form(files, fields)


def is_form(request: Request) -> bool:
    """Whether a request has a multipart form."""
    return request.headers.get("content-type", "").lower().startswith("multipart/form-data")


def _check_end(request: Request) -> None:
    """Refuse a truncated body, which would silently lose its last files."""
    if not request.scope["photomaker.body"].tail.rstrip().endswith(b"--"):
        raise HTTPException(400, "the form is incomplete; send it again")
