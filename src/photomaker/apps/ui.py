"""`photomaker ui`: the page in a browser, with the server and desk of the HTTP API."""

from __future__ import annotations

import os
import socket
import tempfile
import threading
import webbrowser
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from photomaker.apps import terminal
from photomaker.apps.serve import (
    Served,
    address,
    application,
    bound,
    drawers_of,
    models_of,
    opened,
    serve,
    settings_of,
)
from photomaker.errors import SettingsError

if TYPE_CHECKING:
    from fastapi import FastAPI

    from photomaker.apps.server import ServerSettings
    from photomaker.studio.desk.desk import Desk

PORT = 7860
"""The address where Gradio's pages are expected."""
UPLOAD = 256 << 20
"""Most bytes of photos dropped at once; phone photos are large."""
GOODBYE = 1
"""Seconds that open connections get when the page ends; they would never end by themselves."""
VISIT = 3600.0
"""Seconds that a visitor's people and pictures are kept, by default."""


@dataclass(frozen=True)
class Shown:
    """The options of `photomaker ui`.

    Attributes:
        served: Address, folder, tokens and model, as `photomaker serve` takes them.
        browser: Whether to open a browser.
        visitors: Whether everybody is admitted, each with separate people and pictures; the routes of the HTTP API are
            off then.
    """

    served: Served
    browser: bool = True
    visitors: bool = False


def run(asked: Shown) -> None:
    """Show the page until stopped.

    Args:
        asked: The options.

    Raises:
        PhotoMakerError: The address needs a token, no port is free, the folder cannot be used, or the model cannot be
            opened.
    """
    served = asked.served
    if asked.visitors:
        if served.token_file is not None:
            raise SettingsError(
                "--visitors admits everybody and --token-file does not; give only one of them"
            )
        served = replace(served, ttl=VISIT if served.ttl is None else served.ttl)
    settings = None if asked.visitors else settings_of(served)
    allowed = models_of(served.allow)
    with _uploads(), closing(_near(served)) as listening, drawers_of(served) as drawers:
        desk = opened(served, allowed, drawers)
        try:
            app = app_of(desk, settings)
            with terminal.waiting("loading the model"):
                assert desk.engine.method
            where = f"{address(listening)}/"
            terminal.say(f"the page is at {where}; stop it with Ctrl-C")
            terminal.note(f"{desk.engine.profile.line}; people and pictures are stored in {served.data}")
            if asked.browser:
                threading.Timer(1.0, webbrowser.open, (where,)).start()
            serve(app, desk, listening, GOODBYE)
        finally:
            desk.close()
    terminal.say("stopped")


def app_of(desk: Desk, settings: ServerSettings | None) -> FastAPI:
    """The server with the page on it.

    Args:
        desk: The desk, which is started and closed with it.
        settings: Who is admitted; None is everybody, through the page only.

    Raises:
        SettingsError: Gradio is not installed.
    """
    try:
        from photomaker.apps.page.layout import mount
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"the page needs {error.name}; install it with: pip install 'photomaker[ui]'"
        ) from error
    if settings is None:
        return mount(_bare(desk), desk, visitors=True)
    tokens = settings.tokens
    return mount(application(desk, settings), desk, None if tokens is None else tokens.owner)


def _bare(desk: Desk) -> FastAPI:
    """A server without the HTTP API, which without tokens knows only one owner."""
    from collections.abc import AsyncIterator
    from contextlib import asynccontextmanager

    from fastapi import FastAPI

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        with desk:
            yield

    return FastAPI(title="photomaker", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)


def _near(served: Served) -> socket.socket:
    """A socket on the requested port, or on the next free one, with a note."""
    try:
        return bound(served.host, served.port)
    except SettingsError:
        for port in range(served.port + 1, min(served.port + 100, 2**16)):
            try:
                found = bound(served.host, port)
            except SettingsError:
                continue
            terminal.note(f"port {served.port} is in use; using {port} instead")
            return found
        raise


@contextmanager
def _uploads() -> Iterator[None]:
    """A folder for uploads, deleted when the page ends."""
    with tempfile.TemporaryDirectory(prefix="photomaker-ui-", ignore_cleanup_errors=True) as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        yield
