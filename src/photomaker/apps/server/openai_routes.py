"""The image routes of OpenAI's API, for OpenAI's clients."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from time import time
from typing import Any

import anyio
from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.exceptions import HTTPException

from photomaker.apps.server.door import Door, Form, Owner, TheDoor, read_form
from photomaker.apps.server.jobs import PING, finished, news
from photomaker.apps.server.schemas import PROMPT, GenerationIn, ImageOut, ImagesOut, ModelOut, ModelsOut
from photomaker.errors import NotThere, PhotoMakerError
from photomaker.studio.desk.records import Ended, Job, Picture, PictureDone, Stepped, Upload
from photomaker.studio.orders.plain import PlainOrder

router = APIRouter(tags=["openai"])
MODEL = "photomaker"
AUTO = "auto"
_LOOK = 1.0
"""Seconds between checks whether the client is still connected."""
_USAGE = {
    "input_tokens": 0, "output_tokens": 0, "total_tokens": 0,
    "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
}  # fmt: skip
_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {"text/event-stream": {"example": "event: image_generation.partial_image\ndata: {...}\n"}}
    }
}
_FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["image", "prompt"],
                    "properties": {
                        "image": {
                            "type": "array",
                            "items": {"type": "string", "format": "binary"},
                            "description": "Photos of one person; image[] is the same. If the model or identity "
                            "names a saved person, a single scene.",
                        },
                        "mask": {
                            "type": "string",
                            "format": "binary",
                            "description": "Mask of the scene; transparent pixels are redrawn.",
                        },
                        "strength": {"type": "number", "example": 0.6},
                        "stream": {"type": "boolean"},
                        "partial_images": {"type": "integer", "example": 2},
                        "prompt": {"type": "string", "example": PROMPT},
                        "model": {"type": "string", "example": MODEL},
                        "n": {"type": "integer", "example": 2},
                        "size": {"type": "string", "example": AUTO},
                        "response_format": {"type": "string", "enum": ["b64_json", "url"]},
                    },
                }
            }
        },
    }
}


@router.get("/v1/models")
def models(door: TheDoor, owner: Owner) -> ModelsOut:
    """The served model, and each saved person as `photomaker:NAME`, so that clients can choose one."""
    people = door.desk.people(owner)
    named = {f"{MODEL}:{one.name or one.id}": int(one.made) for one in reversed(people)}
    listed = {MODEL: 0, **dict(reversed(named.items()))}
    maker = door.desk.engine.about.get("model", MODEL)
    return ModelsOut(data=[ModelOut(id=name, created=made, owned_by=maker) for name, made in listed.items()])


@router.post("/v1/images/generations", response_model=ImagesOut, responses=_STREAM)
async def generate(
    asked: GenerationIn, request: Request, door: TheDoor, owner: Owner
) -> ImagesOut | Response:
    """Draw a saved person: `model` is `photomaker:NAME`, or `identity` is an id or name."""
    person = _person(asked)
    if person is None:
        raise HTTPException(
            422,
            "no person is named; give the model as photomaker:NAME of a saved person, or identity, or send photos to "
            "/v1/images/edits",
        )
    return await _answered(request, door, owner, asked, _order(asked, person), "image_generation")


@router.post("/v1/images/edits", openapi_extra=_FORM, response_model=ImagesOut, responses=_STREAM)
async def edit(request: Request, door: TheDoor, owner: Owner) -> ImagesOut | Response:
    """Draw the person of the photos, who is saved and recognised if the same photos are sent again.

    If a saved person is named, the image is a scene: the person is drawn over all of it, or where the mask is
    transparent.
    """
    async with door.looking():
        form = await read_form(request, door)
        asked = _asked(form.fields)
        order = await anyio.to_thread.run_sync(_edited, door, owner, asked, form)
    try:
        return await _answered(request, door, owner, asked, order, "image_edit")
    except PhotoMakerError:
        for given in filter(None, (order.start, order.mask)):
            door.desk.delete_picture(owner, given)
        raise


def _edited(door: Door, owner: str, asked: GenerationIn, form: Form) -> PlainOrder:
    images = [*form.files.get("image", ()), *form.files.get("image[]", ())]
    masks, person = form.files.get("mask", []), _person(asked)
    if person is not None:
        door.desk.person(owner, person)
        return _into_scene(door, owner, asked, person, images, masks)
    if masks:
        raise HTTPException(
            422,
            "the images are photos of the person, so they take no mask; name a saved person as "
            "photomaker:NAME to use the image as a scene",
        )
    return _order(asked, door.desk.add_person(owner, images, reuse=True).id)


def _into_scene(
    door: Door, owner: str, asked: GenerationIn, person: str, images: list[Upload], masks: list[Upload]
) -> PlainOrder:
    """The order for a scene that a saved person is drawn into.

    Raises:
        HTTPException: The scene or the mask is not one picture.
    """
    if len(images) != 1 or len(masks) > 1:
        raise HTTPException(
            422,
            f"there are {len(images)} images and {len(masks)} masks; with a saved person give one image, the scene, "
            "and perhaps one mask",
        )
    mask = door.desk.add_clear_mask(owner, masks[0]).id if masks else None
    start = door.desk.add_picture(owner, images[0]).id
    strength = asked.strength or (1.0 if masks else PlainOrder.strength)
    return replace(_order(asked, person), start=start, mask=mask, strength=strength)


def _asked(fields: Mapping[str, str]) -> GenerationIn:
    try:
        return GenerationIn.model_validate(dict(fields))
    except ValidationError as error:
        found = [{**one, "loc": ("body", *one["loc"])} for one in error.errors()]
        raise RequestValidationError(found) from error


def _person(asked: GenerationIn) -> str | None:
    """The person that a request names.

    Raises:
        HTTPException: It names a model that is not served.
    """
    model, _, name = (asked.model or MODEL).partition(":")
    if model != MODEL:
        raise HTTPException(404, f"there is no model {model[:60]!r}; /v1/models lists the models")
    return asked.identity or name or None


def _order(asked: GenerationIn, person: str) -> PlainOrder:
    return PlainOrder(
        (person,), (asked.prompt,), n=asked.n or 1, seed=asked.seed, steps=asked.steps, guidance=asked.guidance,
        merge=asked.merge, negative=asked.negative, style=asked.preset, speed=asked.speed,
        size=None if asked.size in (None, AUTO) else asked.size,
    )  # fmt: skip


async def _answered(
    request: Request, door: Door, owner: str, asked: GenerationIn, order: PlainOrder, kind: str
) -> ImagesOut | Response:
    """All pictures when they are finished, or a stream of them."""
    job = await anyio.to_thread.run_sync(door.desk.submit, owner, order)
    if asked.stream:
        return EventSourceResponse(_stream(door, owner, job, asked, kind), ping=PING)
    job = await _awaited(request, door, owner, job.id)
    if job.state == "cancelled":
        raise HTTPException(409, f"the job was cancelled{': ' * bool(job.reason)}{job.reason}")
    if job.state == "failed":
        raise HTTPException(500, job.reason)
    base = str(request.base_url).rstrip("/")
    images = await anyio.to_thread.run_sync(
        lambda: [_image(door, owner, one, asked.response_format, base) for one in job.pictures]
    )
    return ImagesOut(created=int(job.ended or job.made), data=images)


async def _stream(
    door: Door, owner: str, job: Job, asked: GenerationIn, kind: str
) -> AsyncIterator[ServerSentEvent]:
    """A job's pictures and previews, as OpenAI's clients read them; the job is cancelled if the client disconnects."""
    looks, ended = _Looks(asked.partial_images or 0), False
    try:
        async for event in news(door.desk, owner, job.id, previews=looks.wanted > 0):
            ended = isinstance(event, Ended)
            if isinstance(event, Stepped) and (number := looks.due(event)) is not None:
                for look in event.previews:
                    yield _told(f"{kind}.partial_image", look, "jpeg", asked, {"partial_image_index": number})
            elif isinstance(event, PictureDone):
                file = door.desk.picture_file(owner, event.picture.id)
                data = await anyio.to_thread.run_sync(file.read_bytes)
                yield _told(f"{kind}.completed", data, "png", asked, {"usage": _USAGE})
            elif isinstance(event, Ended) and event.state != "done":
                yield _failure(event.reason or "the job was cancelled")
        if not ended:
            yield _failure("the server is stopping; the job continues when it is back")
    finally:
        if not ended and door.desk.working:
            with suppress(NotThere):
                door.desk.cancel(owner, job.id)


@dataclass
class _Looks:
    """The steps with previews: the wanted number, evenly spread."""

    wanted: int
    last: int = 0
    shown: int = 0

    def due(self, event: Stepped) -> int | None:
        """Number of the preview of a step, from 0; None if it has none."""
        if event.step <= self.last:  # the next pictures have begun
            self.shown = 0
        self.last = event.step
        due = event.step * (self.wanted + 1) // event.steps
        if event.step == event.steps or due <= self.shown:
            return None
        self.shown = due
        return due - 1


def _failure(reason: str) -> ServerSentEvent:
    return ServerSentEvent(json.dumps({"error": {"message": reason}}), event="error")


def _told(kind: str, data: bytes, form: str, asked: GenerationIn, more: Mapping[str, Any]) -> ServerSentEvent:
    values = {
        "type": kind, "b64_json": base64.b64encode(data).decode(), "created_at": int(time()), "output_format": form,
        "size": asked.size or AUTO, "quality": AUTO, "background": "opaque", **more,
    }  # fmt: skip
    return ServerSentEvent(json.dumps(values), event=kind)


async def _awaited(request: Request, door: Door, owner: str, job: str) -> Job:
    """The job when it has ended; it is cancelled if the client disconnects first."""
    end = asyncio.ensure_future(finished(door.desk, owner, job))
    try:
        while not (await asyncio.wait([end], timeout=_LOOK))[0]:
            if await request.is_disconnected():
                await anyio.to_thread.run_sync(door.desk.cancel, owner, job)
        return await end
    finally:
        end.cancel()


def _image(door: Door, owner: str, picture: Picture, form: str | None, base: str) -> ImageOut:
    """A picture in the requested form, or in both."""
    data = None if form == "url" else door.desk.picture_file(owner, picture.id).read_bytes()
    url = (
        None
        if form == "b64_json"
        else f"{base}/v1/images/{picture.id}?ticket={door.desk.ticket(owner, picture.id)}"
    )
    coded = None if data is None else base64.b64encode(data).decode()
    return ImageOut(b64_json=coded, url=url, revised_prompt=picture.prompt)
