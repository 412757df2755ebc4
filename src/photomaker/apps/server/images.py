"""Routes of pictures."""

from __future__ import annotations

from typing import Annotated, Any

import anyio
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from photomaker.apps.server.door import MaybeOwner, Owner, TheDoor, no_token, read_form
from photomaker.apps.server.identities import MISSING
from photomaker.apps.server.schemas import PictureOut

router = APIRouter(prefix="/v1/images", tags=["pictures"])
_FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["image"],
                    "properties": {"image": {"type": "string", "format": "binary"}},
                }
            }
        },
    }
}


@router.post("", status_code=201, openapi_extra=_FORM)
async def add(request: Request, door: TheDoor, owner: Owner) -> PictureOut:
    """Upload a picture to use in orders: a start picture, a mask, edges, a style picture."""
    async with door.looking():
        form = await read_form(request, door)
        given = form.files.get("image", [])
        if len(given) != 1:
            raise HTTPException(422, f"there are {len(given)} files in the field image; send one")
        picture = await anyio.to_thread.run_sync(door.desk.add_picture, owner, given[0])
    return PictureOut.of(picture)


@router.get("")
def all_of_them(
    door: TheDoor,
    owner: Owner,
    most: Annotated[int, Query(ge=1, le=1000, description="How many.")] = 100,
    before: Annotated[float | None, Query(description="Only those made before this time.")] = None,
) -> list[PictureOut]:
    """The last drawn pictures, the newest first."""
    return [PictureOut.of(one) for one in door.desk.pictures(owner, most, before)]


@router.get("/{picture}", response_class=Response, responses={**MISSING, 200: {"content": {"image/png": {}}}})
def one(
    picture: str,
    door: TheDoor,
    owner: MaybeOwner,
    ticket: Annotated[str | None, Query(description="Ticket from a link of the OpenAI routes.")] = None,
) -> Response:
    """A picture's PNG file, which records how it was made."""
    if ticket is not None:
        path = door.desk.picture_by_ticket(picture, ticket)
    elif owner is not None:
        path = door.desk.picture_file(owner, picture)
    else:
        raise no_token()
    headers = {"Cache-Control": "private, max-age=3600"}
    return Response(path.read_bytes(), media_type="image/png", headers=headers)


@router.get("/{picture}/about", responses=MISSING)
def about(picture: str, door: TheDoor, owner: Owner) -> PictureOut:
    """Details of a picture."""
    return PictureOut.of(door.desk.picture(owner, picture))


@router.delete("/{picture}", status_code=204, responses=MISSING)
def delete(picture: str, door: TheDoor, owner: Owner) -> None:
    """Delete a picture permanently."""
    door.desk.delete_picture(owner, picture)
