"""The image routes of OpenAI's API, for clients that speak them."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping
from typing import Any

import anyio
from fastapi import APIRouter, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from photomaker.apps.server.door import Door, Owner, TheDoor, read_form
from photomaker.apps.server.jobs import finished
from photomaker.apps.server.schemas import PROMPT, GenerationIn, ImageOut, ImagesOut, ModelOut, ModelsOut
from photomaker.studio.kept import Job, Picture, Upload
from photomaker.studio.plain_orders import PlainOrder

router = APIRouter(tags=["openai"])
MODEL = "photomaker"
AUTO = "auto"
_LOOK = 1.0
"""Seconds between two looks whether the client is still there."""
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
                            "description": "Photos of one person; image[] is the same.",
                        },
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
    """The model that is served, and each saved person as `photomaker:NAME`, so that clients can choose one."""
    people = door.desk.people(owner)
    named = {f"{MODEL}:{one.name or one.id}": int(one.made) for one in reversed(people)}
    listed = {MODEL: 0, **dict(reversed(named.items()))}
    maker = door.desk.engine.about.get("model", MODEL)
    return ModelsOut(data=[ModelOut(id=name, created=made, owned_by=maker) for name, made in listed.items()])


@router.post("/v1/images/generations")
async def generate(asked: GenerationIn, request: Request, door: TheDoor, owner: Owner) -> ImagesOut:
    """Draw a saved person: `model` is `photomaker:NAME`, or `identity` an id or name."""
    person = _person(asked)
    if person is None:
        raise HTTPException(
            422,
            "nobody is named; give the model as photomaker:NAME of a saved person, or identity, or send photos to "
            "/v1/images/edits",
        )
    return await _drawn(request, door, owner, asked, person)


@router.post("/v1/images/edits", openapi_extra=_FORM)
async def edit(request: Request, door: TheDoor, owner: Owner) -> ImagesOut:
    """Draw the person of the photos; the person is saved, and found again by the same photos."""
    async with door.looking():
        form = await read_form(request, door)
        photos = [*form.files.get("image", ()), *form.files.get("image[]", ())]
        asked = _asked(form.fields)
        if "mask" in form.files:
            raise HTTPException(
                422,
                "the images are photos of the person, so there is nothing to mask; see start and mask of /v1/jobs",
            )
        person = _person(asked)
        if person is None:
            person = await anyio.to_thread.run_sync(_saved, door, owner, photos)
    return await _drawn(request, door, owner, asked, person)


def _saved(door: Door, owner: str, photos: list[Upload]) -> str:
    return door.desk.add_person(owner, photos, reuse=True).id


def _asked(fields: Mapping[str, str]) -> GenerationIn:
    try:
        return GenerationIn.model_validate(dict(fields))
    except ValidationError as error:
        found = [{**one, "loc": ("body", *one["loc"])} for one in error.errors()]
        raise RequestValidationError(found) from error


def _person(asked: GenerationIn) -> str | None:
    """Whom a request names.

    Raises:
        HTTPException: It names a model that is not served.
    """
    model, _, name = (asked.model or MODEL).partition(":")
    if model != MODEL:
        raise HTTPException(404, f"there is no model {model[:60]!r} here; /v1/models lists what there is")
    return asked.identity or name or None


async def _drawn(request: Request, door: Door, owner: str, asked: GenerationIn, person: str) -> ImagesOut:
    order = PlainOrder(
        (person,), (asked.prompt,), n=asked.n or 1, seed=asked.seed, steps=asked.steps, guidance=asked.guidance,
        merge=asked.merge, negative=asked.negative, style=asked.preset, speed=asked.speed,
        size=None if asked.size in (None, AUTO) else asked.size,
    )  # fmt: skip
    job = await anyio.to_thread.run_sync(door.desk.submit, owner, order)
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


async def _awaited(request: Request, door: Door, owner: str, job: str) -> Job:
    """The job once it has ended; it is cancelled where the client goes away before, since nobody would fetch it."""
    end = asyncio.ensure_future(finished(door.desk, owner, job))
    try:
        while not (await asyncio.wait([end], timeout=_LOOK))[0]:
            if await request.is_disconnected():
                await anyio.to_thread.run_sync(door.desk.cancel, owner, job)
        return await end
    finally:
        end.cancel()


def _image(door: Door, owner: str, picture: Picture, form: str | None, base: str) -> ImageOut:
    """A picture in the form that was asked for, or in both."""
    data = None if form == "url" else door.desk.picture_file(owner, picture.id).read_bytes()
    url = (
        None
        if form == "b64_json"
        else f"{base}/v1/images/{picture.id}?ticket={door.desk.ticket(owner, picture.id)}"
    )
    coded = None if data is None else base64.b64encode(data).decode()
    return ImageOut(b64_json=coded, url=url, revised_prompt=picture.prompt)
