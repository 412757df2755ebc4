"""The page as a Gradio application, and its place on a server."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # warnings from Gradio's own imports
    import gradio as gr

from photomaker.apps.page.actions import Actions
from photomaker.apps.page.files import Links
from photomaker.apps.page.gate import Badge, Gate
from photomaker.apps.page.handlers import Handlers
from photomaker.apps.page.style import BEGIN, ICON, SPEAK, THEME, TO_CHOSEN, TO_STATUS, sheet, theme
from photomaker.apps.page.texts import say
from photomaker.apps.page.widgets import Widgets

if TYPE_CHECKING:
    from fastapi import FastAPI

    from photomaker.studio.desk.desk import Desk

PATH = "/ui"
LOOKING = 2
"""Visitors whose photos are checked at the same time."""
CLEANED = (600, 3600)
"""How often Gradio's copies of uploads are cleaned up, and their maximum age, in seconds."""


def page(actions: Actions, links: Links, owner_of: Callable[[gr.Request], str]) -> gr.Blocks:
    """The page.

    Args:
        actions: The page's actions.
        links: Makes links to pictures.
        owner_of: Gives the owner of a request.
    """
    widgets = Widgets(actions)
    with gr.Blocks(title=say("en", "title"), analytics_enabled=False, delete_cache=CLEANED) as blocks:
        widgets.place()
        _bind(blocks, widgets, Handlers(widgets, links, owner_of))
    blocks.queue(default_concurrency_limit=None, api_open=False)
    return blocks


def _bind(blocks: gr.Blocks, w: Widgets, do: Handlers) -> None:
    everything = _outputs(w)

    def on(event: Any, handler: Any, *inputs: Any, **more: Any) -> None:  # noqa: ANN401 - events and widgets
        event(handler, list(inputs), everything, show_progress="hidden", api_visibility="private", **more)

    language = w.language
    on(blocks.load, do.load, w.kept_language)
    w.theme.click(None, js=THEME)
    on(
        w.speak.act, do.speak, w.person, w.prompt, w.shown, w.labels, w.picked, w.start, w.photos, w.what,
    )  # fmt: skip
    w.kept_language.change(None, w.kept_language, js=SPEAK)
    on(w.library.act, do.in_library, language, w.person, w.prompt)
    on(w.drop.upload, do.dropped, language, w.drop, w.photos, concurrency_limit=LOOKING)
    on(w.coached.act, do.photo_away, language, w.photos)
    for event in (w.save.click, w.name.submit):
        on(event, do.save, language, w.photos, w.name, w.consent, w.prompt, concurrency_limit=LOOKING)
    on(w.clear.click, do.clear, language, w.photos)
    on(w.mix.click, do.mix, language, w.first, w.second, w.share, w.mixed_name, w.prompt)
    on(w.prompt.change, do.read, language, w.prompt, w.person, trigger_mode="always_last")
    on(w.ideas.act, do.idea, w.prompt)
    on(w.beginning.act, do.begin_anew, language)
    on(w.upload_start.upload, do.begin_with_file, language, w.upload_start)
    for event in (w.make.click, w.prompt.submit):
        on(event, do.make, language, *w.form)
    w.make.click(None, js=TO_STATUS)
    w.chosen.change(None, js=TO_CHOSEN)
    on(w.cancel.click, do.cancel, w.jobs)
    on(w.grid.act, do.in_grid, language, w.shown, w.labels, w.jobs)
    on(w.earlier.act, do.in_grid, language, w.shown, w.labels, w.jobs)
    on(w.chosen.act, do.in_panel, language, w.shown, w.labels)
    for button, verb in ((w.again, do.again), (w.vary, do.vary), (w.redraw_one, do.redraw)):
        on(button.click, verb, language, w.picked)
    on(w.use.click, do.begin_with, language, w.picked)
    on(w.what.change, do.compare_what, language, w.what)
    on(w.compare.click, do.compare, language, w.picked, w.what, w.one, w.other)
    on(w.older.click, do.older, language, w.older_than)


def _outputs(w: Widgets) -> list[Any]:
    told = [one for one, _ in w.translated] + [one for one, *_ in w.headings]
    named = [one for one in vars(w).values() if isinstance(one, gr.blocks.Block)]
    return list(dict.fromkeys([*told, *named]))


def mount(
    app: FastAPI, desk: Desk, owner_of: Callable[[str], str | None] | None = None, visitors: bool = False,
    local: str = "local",
) -> FastAPI:  # fmt: skip
    """Put the page on a server.

    Args:
        app: The server, whose routes are not changed.
        desk: The desk behind the page; the caller starts and closes it.
        owner_of: Gives the owner of a token; None admits everybody.
        visitors: Whether each visitor has separate people and pictures until they close the page.
        local: The owner if there are neither tokens nor visitors.
    """
    from starlette.responses import RedirectResponse, Response

    badge, links = Badge(owner_of), Links(desk)

    def owner(request: gr.Request) -> str:
        if owner_of is not None:
            known = badge.read(dict(request.cookies))
            assert known is not None  # the gate admits nobody else
            return known
        return f"visitor-{request.session_hash}" if visitors else local

    app.include_router(links.router(PATH))
    for path in ("/", PATH):
        app.add_api_route(path, lambda: RedirectResponse(f"{PATH}/"), include_in_schema=False)
    icon = Response(ICON, media_type="image/svg+xml")
    app.add_api_route("/favicon.ico", lambda: icon, include_in_schema=False)
    app.add_middleware(Gate, path=PATH, badge=badge)
    blocks = page(Actions(desk), links, owner)
    return gr.mount_gradio_app(
        app, blocks, PATH, show_error=False, footer_links=[], theme=theme(), css=sheet(), js=BEGIN,
        max_file_size=desk.limits.upload_bytes, ssr_mode=False, pwa=False, mcp_server=False, enable_monitoring=False,
    )  # fmt: skip
