"""Routes of jobs, and the stream of a job's events."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import Annotated, Any

import anyio
from fastapi import APIRouter, Header, Query, Request
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.exceptions import HTTPException

from photomaker.apps.server.door import Form, Owner, TheDoor, is_form, read_form
from photomaker.apps.server.identities import MISSING
from photomaker.apps.server.schemas import JobOut, OrderIn, PictureOut, Problem
from photomaker.errors import NotThere
from photomaker.outside import read_object
from photomaker.studio.desk.desk import Desk
from photomaker.studio.desk.records import Ended, Job, JobEvent, PictureDone, Stepped
from photomaker.studio.orders.plain import PlainOrder

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])
UPLOAD = "upload:"
"""Prefix of a form field's name, used instead of a picture's id."""
PING = 15
"""Seconds between keep-alive messages of a stream."""
_PICTURES = ("start", "mask", "layout", "controls", "t2i", "style_picture", "pose")
_EVENTS = """event: queued
data: {"place": 2}

event: step
data: {"step": 7, "steps": 20, "done": 0, "total": 4, "previews": ["data:image/jpeg;base64,..."]}

id: 1
event: picture
data: {"done": 1, "total": 4, "picture": {"id": "pic_...", "likeness": 0.71, "verdict": "..."}}

id: 5
event: ended
data: {"state": "done", "reason": "", "pictures": 4}
"""


def _body() -> dict[str, Any]:
    order = OrderIn.model_json_schema(ref_template="#/components/schemas/{model}")
    order.pop("$defs", None)
    files = {"type": "array", "items": {"type": "string", "format": "binary"}}
    form = {
        "type": "object",
        "required": ["order"],
        "properties": {
            "order": {"type": "string", "description": "The order as JSON."},
            "photos": {**files, "description": "Photos of a person, who is saved and added to the order."},
        },
        "additionalProperties": {
            "type": "string",
            "format": "binary",
            "description": "A picture that the order names as upload:FIELD.",
        },
    }
    content = {"application/json": {"schema": order}, "multipart/form-data": {"schema": form}}
    return {"requestBody": {"required": True, "content": content}}


@router.post(
    "",
    status_code=202,
    openapi_extra=_body(),
    responses={
        429: {
            "model": Problem,
            "description": "Too many jobs are waiting; Retry-After says when to try again.",
        }
    },
)
async def submit(request: Request, door: TheDoor, owner: Owner) -> JobOut:
    """Submit an order: JSON, or a form with the order in `order` and files."""
    if not is_form(request):
        order = _order(await request.body())
        return JobOut.of(await anyio.to_thread.run_sync(door.desk.submit, owner, PlainOrder.of(order)))
    async with door.looking():
        form = await read_form(request, door)
        return JobOut.of(await anyio.to_thread.run_sync(_with_files, door.desk, owner, form))


@router.get("")
def all_of_them(
    door: TheDoor, owner: Owner, most: Annotated[int, Query(ge=1, le=1000, description="How many.")] = 100
) -> list[JobOut]:
    """The last jobs, the newest first."""
    return [JobOut.of(one) for one in door.desk.jobs(owner, most)]


@router.get("/{job}", responses=MISSING)
def one(job: str, door: TheDoor, owner: Owner) -> JobOut:
    """The state of a job, with its finished pictures."""
    return JobOut.of(door.desk.job(owner, job))


@router.delete("/{job}", responses=MISSING)
def cancel(
    job: str,
    door: TheDoor,
    owner: Owner,
    forget: Annotated[bool, Query(description="Also delete the job and its pictures.")] = False,
) -> JobOut:
    """Stop a job within one step. Finished pictures stay, unless `forget` is set; repeating it is harmless."""
    stopped = door.desk.cancel(owner, job)
    if forget:
        door.desk.delete_job(owner, job)
    return JobOut.of(stopped)


@router.get(
    "/{job}/events",
    response_class=EventSourceResponse,
    responses={**MISSING, 200: {"content": {"text/event-stream": {"example": _EVENTS}}}},
)
def events(
    job: str,
    door: TheDoor,
    owner: Owner,
    after: Annotated[int, Query(ge=0, description="Leave out events up to this id.")] = 0,
    previews: Annotated[bool, Query(description="Whether step events have previews.")] = True,
    last_event_id: Annotated[str | None, Header(description="Sent by a browser that reconnects.")] = None,
) -> EventSourceResponse:
    """The events of a job, from beginning to end: queued, note, step, picture, ended.

    Notes, pictures and the end have ids, and are sent again to later clients; places and steps are sent only live.
    """
    door.desk.check_job(owner, job)
    if last_event_id is not None and last_event_id.isascii() and last_event_id.isdigit():
        after = max(after, int(last_event_id))
    return EventSourceResponse(_stream(door.desk, owner, job, after, previews), ping=PING)


async def _stream(
    desk: Desk, owner: str, job: str, after: int, previews: bool
) -> AsyncIterator[ServerSentEvent]:
    with suppress(NotThere):  # deleted since the request was checked
        async for event in news(desk, owner, job, after, previews):
            number = getattr(event, "number", 0)
            yield ServerSentEvent(
                json.dumps(told(event, previews)), event=event.kind, id=str(number) if number else None
            )


async def news(
    desk: Desk, owner: str, job: str, after: int = 0, previews: bool = True
) -> AsyncIterator[JobEvent]:
    """The events of a job, without a blocking thread.

    Raises:
        NotThere: There is no such job.
    """
    loop, woken = asyncio.get_running_loop(), asyncio.Event()

    def notify() -> None:
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(woken.set)

    following = desk.follow(owner, job, notify, after, previews)
    try:
        while True:
            woken.clear()
            for event in await anyio.to_thread.run_sync(following.news):
                yield event
            if following.ended:
                return
            await woken.wait()
    finally:
        following.close()


def told(event: JobEvent, previews: bool = True) -> dict[str, Any]:
    """An event as sent."""
    values = {name: value for name, value in vars(event).items() if name not in ("kind", "number")}
    if isinstance(event, PictureDone):
        values["picture"] = PictureOut.of(event.picture).model_dump()
    if isinstance(event, Stepped):
        shown = event.previews if previews else ()
        values["previews"] = ["data:image/jpeg;base64," + base64.b64encode(one).decode() for one in shown]
    return values


async def finished(desk: Desk, owner: str, job: str) -> Job:
    """A job once it has ended.

    Raises:
        HTTPException: The server is stopping.
    """
    async for event in news(desk, owner, job, previews=False):
        if isinstance(event, Ended):
            return desk.job(owner, job)
    raise HTTPException(
        503, "the server is stopping; the job continues when it is back", {"Retry-After": "10"}
    )


def _order(data: bytes | str) -> dict[str, Any]:
    try:
        return read_object(data)
    except (ValueError, UnicodeDecodeError) as error:
        raise HTTPException(400, f"the order is not a JSON object: {error}; see /openapi.json") from error


def _with_files(desk: Desk, owner: str, form: Form) -> Job:
    """Submit an order with its files; if it is refused, the files are not kept."""
    if "order" not in form.fields:
        raise HTTPException(422, "the form has no field 'order'; send the order as JSON in it")
    values = _order(form.fields["order"])
    people: list[str] = []
    pictures: dict[str, str] = {}
    try:
        for name, files in form.files.items():
            if name == "photos":
                people.append(desk.add_person(owner, files).id)
            else:
                pictures[name] = desk.add_picture(owner, files[0]).id
        asked = values.get("people", [])
        if people and isinstance(asked, list):  # the order's own check reports anything else
            values = {**values, "people": [*asked, *people]}
        named = {key: _named(values[key], pictures) for key in _PICTURES if key in values}
        return desk.submit(owner, PlainOrder.of({**values, **named}))
    except Exception:
        for person in people:
            desk.delete_person(owner, person)
        for picture in pictures.values():
            desk.delete_picture(owner, picture)
        raise


def _named(value: Any, pictures: Mapping[str, str]) -> Any:  # noqa: ANN401 - whatever JSON holds
    """The value with ids in place of names of uploads."""
    if isinstance(value, list):
        return [_named(one, pictures) for one in value]
    if isinstance(value, dict):
        return {key: _named(one, pictures) for key, one in value.items()}
    if not (isinstance(value, str) and value.startswith(UPLOAD)):
        return value
    name = value.removeprefix(UPLOAD)
    if name not in pictures:
        raise HTTPException(422, f"the order names {value[:60]!r}, but the form has no such file; send it")
    return pictures[name]
