"""Routes of saved people."""

from __future__ import annotations

from typing import Any

import anyio
from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, Response
from starlette.exceptions import HTTPException

from photomaker.apps.server.door import Owner, TheDoor, read_form
from photomaker.apps.server.schemas import PERSON_ID, MixIn, PersonOut, Problem, RenameIn

router = APIRouter(prefix="/v1/identities", tags=["people"])
_FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["photos"],
                    "properties": {
                        "photos": {
                            "type": "array",
                            "items": {"type": "string", "format": "binary"},
                            "description": "Photos of one person.",
                        },
                        "name": {
                            "type": "string",
                            "description": "Name of the person.",
                            "example": "Ada",
                        },
                        "consent": {
                            "type": "string",
                            "description": "Who agreed, when, and to what; written into every picture of the person.",
                            "example": "Ada, 28 November 2026, pictures for her blog",
                        },
                    },
                }
            }
        },
    }
}
MISSING: dict[int | str, dict[str, Any]] = {
    404: {"model": Problem, "description": "You have no such person."}
}


@router.post(
    "",
    status_code=201,
    openapi_extra=_FORM,
    responses={413: {"model": Problem, "description": "The photos are too large in total."}},
)
async def add(request: Request, door: TheDoor, owner: Owner) -> PersonOut:
    """Save a person from photos; the photos are not kept. Returns the coach's report on each."""
    async with door.looking():
        form = await read_form(request, door)
        photos = [*form.files.get("photos", ()), *form.files.get("photos[]", ())]
        person = await anyio.to_thread.run_sync(
            lambda: door.desk.add_person(
                owner, photos, form.fields.get("name", ""), consent=form.fields.get("consent") or None
            )
        )
    return PersonOut.of(person)


@router.get("")
def all_of_them(door: TheDoor, owner: Owner) -> list[PersonOut]:
    """All saved people, the newest first."""
    return [PersonOut.of(one) for one in door.desk.people(owner)]


@router.post("/mix", status_code=201, responses=MISSING)
def mix(two: MixIn, door: TheDoor, owner: Owner) -> PersonOut:
    """Save a mix of two people."""
    return PersonOut.of(door.desk.mix(owner, two.first, two.second, two.share, two.name, two.how))


@router.get("/{person}", responses=MISSING)
def one(person: str, door: TheDoor, owner: Owner) -> PersonOut:
    """A saved person by id or name."""
    return PersonOut.of(door.desk.person(owner, person))


@router.patch("/{person}", responses=MISSING)
def rename(person: str, to: RenameIn, door: TheDoor, owner: Owner) -> PersonOut:
    """Rename a person."""
    return PersonOut.of(door.desk.rename_person(owner, person, to.name))


@router.get(
    "/{person}/file",
    response_class=FileResponse,
    responses={
        **MISSING,
        200: {"content": {"application/octet-stream": {"example": f"{PERSON_ID}.safetensors"}}},
    },
)
def file(person: str, door: TheDoor, owner: Owner) -> Response:
    """The person as an identity file, for `photomaker generate --identity`."""
    path = door.desk.identity_file(owner, person)
    return FileResponse(path, media_type="application/octet-stream", filename=path.name)


@router.get(
    "/{person}/portrait", response_class=Response, responses={**MISSING, 200: {"content": {"image/png": {}}}}
)
def portrait(person: str, door: TheDoor, owner: Owner) -> Response:
    """A small picture of the person's face."""
    path = door.desk.portrait(owner, person)
    if path is None:
        raise HTTPException(404, "this person has no portrait")
    return Response(path.read_bytes(), media_type="image/png")


@router.delete("/{person}", status_code=204, responses=MISSING)
def delete(person: str, door: TheDoor, owner: Owner) -> None:
    """Delete a person permanently, and cancel the jobs that would draw them; pictures of them stay."""
    door.desk.delete_person(owner, person)
