"""The application: routes to a desk."""

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
from photomaker.studio.desk.desk import Desk

_ABOUT = """
Save a person from a few photos, order pictures of them, and watch the progress.

If the server has tokens, send one: `Authorization: Bearer TOKEN`. Every error is `problem+json`, with one sentence in
`detail`.
"""
_TAGS = [
    {"name": "people", "description": "Saved people: create from photos, mix, delete."},
    {"name": "jobs", "description": "Jobs: submit, watch, cancel."},
    {"name": "pictures", "description": "Drawn and uploaded pictures."},
    {"name": "openai", "description": "The image routes of OpenAI's API, for OpenAI's clients."},
    {"name": "server", "description": "Models, styles, health and metrics."},
]


def create_app(desk: Desk, settings: ServerSettings | None = None, metrics: Metrics | None = None) -> FastAPI:
    """The HTTP server around a desk, which starts and closes with it.

    Args:
        desk: Takes the orders.
        settings: Who is admitted.
        metrics: Receives the desk's measurements; None makes new ones.
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
        docs_url=None, redoc_url=None,  # both load scripts from other sites
        responses={422: {"model": Problem, "description": "The error, in one sentence."}},
    )  # fmt: skip
    app.state.door = Door(desk, settings, metrics)
    app.add_middleware(
        Guard, uploads=desk.limits.upload_bytes, plain=settings.plain_bytes, hosts=settings.hosts
    )
    problems.install(app)
    for routes in (identities, jobs, images, openai_routes, about):
        app.include_router(routes.router)
    return app
