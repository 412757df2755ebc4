"""Pictures for the browser, straight from the desk's folder, by signed links.

Nothing is copied into Gradio's cache, so deleted pictures are gone.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import re
import secrets
from pathlib import Path
from typing import Literal

from fastapi import APIRouter
from fastapi.responses import FileResponse, Response
from PIL import Image

from photomaker.studio.desk.desk import Desk
from photomaker.studio.desk.store import PICTURE, PORTRAIT

Kind = Literal["picture", "small", "portrait"]
SMALL = 384
"""Pixels: the longer side of a picture in a grid."""
_PLACES = {"picture": PICTURE, "small": PICTURE, "portrait": PORTRAIT}
_HEADERS = {"Cache-Control": "private, max-age=3600", "X-Content-Type-Options": "nosniff"}
_ID = re.compile(r"[a-z]{3}_[0-9a-f]{32}")


class Links:
    """Makes and checks links for the owners of pictures; they are valid while the server runs."""

    def __init__(self, desk: Desk) -> None:
        """Start with a new key."""
        self._desk, self._key = desk, secrets.token_bytes(32)

    def to(self, kind: Kind, id_: str) -> str:
        """A link to a picture or portrait, relative to the page, for its owner."""
        return f"files/{kind}/{id_}/{self._sign(kind, id_)}"

    def _sign(self, kind: str, id_: str) -> str:
        return hmac.digest(self._key, f"{kind} {id_}".encode(), hashlib.sha256).hex()

    def router(self, prefix: str) -> APIRouter:
        """The route of the links."""
        router = APIRouter(include_in_schema=False)

        @router.get(prefix + "/files/{kind}/{id_}/{sign}")
        def file(kind: str, id_: str, sign: str) -> Response:
            signed = secrets.compare_digest(sign.encode(), self._sign(kind, id_).encode())
            if not signed or kind not in _PLACES or not _ID.fullmatch(id_):
                return Response(status_code=404)
            path = self._desk.store.path(_PLACES[kind], id_)
            if not path.is_file():
                return Response(status_code=404)
            if kind == "small":
                return _small(path)
            return FileResponse(path, media_type="image/png", headers=_HEADERS)

        return router


def _small(path: Path) -> Response:
    with Image.open(path) as image:
        if max(image.size) <= SMALL:
            return FileResponse(path, media_type="image/png", headers=_HEADERS)
        small = image.convert("RGB")
    small.thumbnail((SMALL, SMALL), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    small.save(data, "WEBP", quality=88)
    return Response(data.getvalue(), media_type="image/webp", headers=_HEADERS)
