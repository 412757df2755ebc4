"""`photomaker ui`: the page in a browser, on the same server and desk as the HTTP API."""

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
    from photomaker.studio.desk import Desk

PORT = 7860
"""Where Gradio's pages are expected."""
UPLOAD = 256 << 20
"""Bytes of all photos that are dropped at once, as phones take them."""
GOODBYE = 1
"""Seconds that the page's open connections are given when it ends; they would never end by themselves."""
VISIT = 3600.0
"""Seconds that a visitor's people and pictures are kept, where nothing else is said."""


@dataclass(frozen=True)
class Shown:
    """What `photomaker ui` was asked for.

    Attributes:
        served: Address, folder, tokens and model, as `photomaker serve` takes them.
        browser: Whether to open a browser.
        visitors: Whether anybody may come in, each with people and pictures of their own; the routes of the HTTP API
            are not there then.
    """

    served: Served
    browser: bool = True
    visitors: bool = False


def run(asked: Shown) -> None:
    """Show the page until somebody ends it.

    Args:
        asked: What is asked for.

    Raises:
        PhotoMakerError: The address needs a token, no port is free, the folder cannot be used, or the model cannot be
            opened.
    """
    served = asked.served
    if asked.visitors:
        if served.token_file is not None:
            raise SettingsError("--visitors lets everybody in and --token-file does not; give one of them")
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
            terminal.say(f"the page is at {where}; end it by Ctrl-C")
            terminal.note(f"{desk.engine.profile.line}; what is made is kept in {served.data}")
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
        settings: Who may come in; None is anybody, by the page alone.

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
    """A server without the HTTP API, whose routes know of one owner only where there are no tokens."""
    from collections.abc import AsyncIterator
    from contextlib import asynccontextmanager

    from fastapi import FastAPI

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        with desk:
            yield

    return FastAPI(title="photomaker", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)


def _near(served: Served) -> socket.socket:
    """A socket on the port that was asked for, or on the next free one, which is said."""
    try:
        return bound(served.host, served.port)
    except SettingsError:
        for port in range(served.port + 1, min(served.port + 100, 2**16)):
            try:
                found = bound(served.host, port)
            except SettingsError:
                continue
            terminal.note(f"port {served.port} is in use; {port} is free and taken instead")
            return found
        raise


@contextmanager
def _uploads() -> Iterator[None]:
    """A folder for what browsers send, gone when the page ends."""
    with tempfile.TemporaryDirectory(prefix="photomaker-ui-", ignore_cleanup_errors=True) as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        yield
