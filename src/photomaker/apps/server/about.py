"""Routes for models, styles, health and metrics."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response

from photomaker.apps.server.door import Owner, TheDoor
from photomaker.apps.server.schemas import Health, StyleOut

router = APIRouter(tags=["server"])


@router.get("/v1/styles")
def styles(door: TheDoor, owner: Owner) -> list[StyleOut]:
    """The style presets."""
    del owner
    engine = door.desk.engine
    return [
        StyleOut(
            name=one.name, prompt=one.preset.prompt, negative=one.preset.negative,
            works=not engine.profile.bundled or one.preset.bundled is not None,
        )
        for one in engine.styles().values()
    ]  # fmt: skip


@router.get("/health", responses={503: {"model": Health, "description": "It accepts no more work."}})
def health(door: TheDoor) -> Response:
    """Whether the server works; needs no token."""
    working = door.desk.working
    told = Health(
        status="ok" if working else "stopping", **door.desk.counts(), model=door.desk.engine.profile.line
    )
    return JSONResponse(told.model_dump(), 200 if working else 503)


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
def metrics(door: TheDoor, owner: Owner) -> Response:
    """Metrics for Prometheus."""
    del owner
    return Response(door.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")
