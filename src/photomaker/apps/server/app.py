"""The application: a desk behind routes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI

from photomaker.apps.server import about, identities, images, jobs, openai_routes, problems
from photomaker.apps.server.door import Door, ServerSettings
from photomaker.apps.server.guard import Guard
from photomaker.apps.server.metrics import Metrics
from photomaker.apps.server.schemas import Problem
from photomaker.studio.desk import Desk

_ABOUT = """
Save a person from a few photos, order pictures of them, watch them come.

Where the server has tokens, send one: `Authorization: Bearer TOKEN`. Every mistake is answered by `problem+json`, with
one sentence in `detail`.
"""
_TAGS = [
    {"name": "people", "description": "Saved people: made of photos, mixed, deleted."},
    {"name": "jobs", "description": "Orders: taken, watched, cancelled."},
    {"name": "pictures", "description": "What was drawn, and pictures to draw from."},
    {"name": "openai", "description": "The image routes of OpenAI's API, for clients that speak them."},
    {"name": "server", "description": "What is here, and how it is."},
]


def create_app(desk: Desk, settings: ServerSettings | None = None, metrics: Metrics | None = None) -> FastAPI:
    """The HTTP server around a desk, which is started with it and closed with it.

    Args:
        desk: Takes the orders.
        settings: Who may come in.
        metrics: What the desk's `measure` tells; None begins at 0 and takes the desk's over.
    """
    settings = settings or ServerSettings()
    if metrics is None:
        metrics = Metrics()
        desk.measure = metrics.measure
    metrics.watch(desk)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        with desk:
            yield

    app = FastAPI(
        title="photomaker", version=version("photomaker"), description=_ABOUT, openapi_tags=_TAGS, lifespan=lifespan,
        docs_url=None, redoc_url=None,  # both load scripts from elsewhere
        responses={422: {"model": Problem, "description": "What was wrong, in one sentence."}},
    )  # fmt: skip
    app.state.door = Door(desk, settings, metrics)
    app.add_middleware(
        Guard, uploads=desk.limits.upload_bytes, plain=settings.plain_bytes, hosts=settings.hosts
    )
    problems.install(app)
    for routes in (identities, jobs, images, openai_routes, about):
        app.include_router(routes.router)
    return app
