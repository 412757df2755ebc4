"""What every route needs: the desk, who is calling, and files that come with a request."""

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
from photomaker.studio.desk import Desk
from photomaker.studio.kept import Upload

LOOKING = 2
"""Requests at a time that photos are decoded for."""
FIELDS = 64
"""Fields of a form that are no files."""
BESIDE = 8
"""Files of a form beside photos: start picture, mask and so on."""
_bearer = HTTPBearer(auto_error=False, description="A token of the server's; none is needed on this machine.")


@dataclass(frozen=True)
class ServerSettings:
    """How the door is kept.

    Attributes:
        tokens: Who may come in; None lets everybody in, as one owner.
        hosts: Names by which the server may be called, against sites that point a name of theirs at this machine; None
            is any.
        plain_bytes: Of a body that is no multipart.
        waiting: Callers that may wait for their photos to be looked at.
    """

    tokens: Tokens | None = None
    hosts: frozenset[str] | None = frozenset({"127.0.0.1", "localhost", "::1"})
    plain_bytes: int = 1 << 20
    waiting: int = 64


@dataclass(frozen=True)
class Door:
    """What routes share."""

    desk: Desk
    settings: ServerSettings
    metrics: Metrics
    _looking: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(LOOKING))

    @asynccontextmanager
    async def looking(self) -> AsyncIterator[None]:
        """Wait for a turn at decoding and looking at photos, which takes memory.

        Raises:
            QueueFull: Too many wait for it.
        """
        waiting = self._looking.statistics().tasks_waiting
        if waiting >= self.settings.waiting:
            raise QueueFull(f"{waiting} callers wait for their photos to be looked at; try again in 10 s", 10)
        async with self._looking:
            yield


def _door(request: Request) -> Door:
    door: Door = request.app.state.door
    return door


TheDoor = Annotated[Door, Depends(_door)]
Given = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


def known_owner(door: TheDoor, given: Given) -> str | None:
    """Who is calling; None is nobody we know."""
    if door.settings.tokens is None:
        return LOCAL
    return None if given is None else door.settings.tokens.owner(given.credentials)


def _owner(owner: Annotated[str | None, Depends(known_owner)]) -> str:
    if owner is None:
        raise no_token()
    return owner


def no_token() -> HTTPException:
    """The answer to whom nobody knows."""
    return HTTPException(
        401, "this server wants a token: Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer"}
    )


Owner = Annotated[str, Depends(_owner)]
MaybeOwner = Annotated[str | None, Depends(known_owner)]


@dataclass(frozen=True)
class Form:
    """A multipart form.

    Attributes:
        files: By the names of their fields, in their order.
        fields: The rest; of several of a name the last.
    """

    files: dict[str, list[Upload]]
    fields: dict[str, str]


async def read_form(request: Request, door: Door) -> Form:
    """The form that a request carries.

    Raises:
        HTTPException: It is none, is broken, or has too many parts.
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
    """Whether a request carries a multipart form."""
    return request.headers.get("content-type", "").lower().startswith("multipart/form-data")


def _check_end(request: Request) -> None:
    """A body that was cut off would lose its last files without a word."""
    if not request.scope["photomaker.body"].tail.rstrip().endswith(b"--"):
        raise HTTPException(400, "the form breaks off before its end; send it again")
