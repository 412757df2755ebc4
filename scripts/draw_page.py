"""Photographs the page for the documentation: `docs/images/ui*.png`. Needs playwright and a Chromium.

python scripts/draw_page.py --out docs/images
"""

from __future__ import annotations

import argparse
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from PIL import Image, ImageEnhance
from playwright.sync_api import Browser, Page, sync_playwright

from photomaker import Engine, weights
from photomaker.apps.server import ServerSettings
from photomaker.apps.ui import app_of
from photomaker.studio.desk.desk import Desk

PEOPLE = weights.ASSETS / "people"
PATIENCE = 120_000
"""Milliseconds that a step of the way may take."""


@contextmanager
def served(engine: Engine, folder: Path) -> Iterator[str]:
    """The page on a free port, as its address; people and pictures go into a folder."""
    listening = socket.create_server(("127.0.0.1", 0))
    desk = Desk(engine, folder)
    server = uvicorn.Server(uvicorn.Config(app_of(desk, ServerSettings(None)), log_level="error"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        while not server.started:
            time.sleep(0.05)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        desk.stop()
        server.should_exit = True
        thread.join()
        desk.close()


@contextmanager
def opened(browser: Browser, address: str, **more: Any) -> Iterator[Page]:
    """The page in a window of its own."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, "locale": "en-GB", **more})
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    page.goto(address)
    page.wait_for_selector(".pm-example, .pm-person")
    yield page
    context.close()


def drawn(page: Page) -> None:
    """Wait until what was asked for is drawn."""
    page.wait_for_selector("#pm-cancel", state="visible")
    page.wait_for_selector("#pm-make", state="visible")
    page.wait_for_timeout(500)


def asked(page: Page, prompt: str, count: int, seed: int) -> None:
    """Ask for pictures of the chosen person."""
    page.fill("#pm-prompt textarea", prompt)
    page.fill("#pm-count input[type=number]", str(count))
    page.fill("#pm-seed :is(input, textarea)", str(seed))
    page.wait_for_timeout(1000)
    page.click("#pm-make")
    drawn(page)


def kept(page: Page, file: Path) -> None:
    """Keep what the page shows, with 256 colours: a third of the bytes."""
    page.screenshot(path=file, full_page=True)
    with Image.open(file) as picture:
        picture.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(file, optimize=True)


def photos(page: Page, folder: Path, to: Path) -> None:
    """Photos that are judged as they are dropped, one of them dark."""
    files = sorted((PEOPLE / "ada").glob("*.png"))[:3]
    with Image.open(files[2]) as picture:
        ImageEnhance.Brightness(picture.convert("RGB")).enhance(0.12).save(folder / "dark.png")
    page.click(".pm-example >> nth=1")
    drawn(page)
    page.set_input_files("#pm-drop input[type=file]", [*map(str, files), str(folder / "dark.png")])
    page.wait_for_selector(".pm-photo >> nth=3")
    page.fill("#pm-name :is(input, textarea)", "Ada")
    page.wait_for_timeout(1500)
    kept(page, to / "ui_photos.png")


def whole(page: Page, to: Path) -> None:
    """Four pictures, one of them chosen."""
    page.click(".pm-example >> nth=0")
    drawn(page)
    asked(page, "a photo of a woman wearing sunglasses in the snow", 4, 7)
    page.click(".pm-card >> nth=0")
    page.wait_for_selector(".pm-chosen")
    page.wait_for_timeout(500)
    kept(page, to / "ui.png")


def compared(page: Page, to: Path) -> None:
    """Two settings side by side, in the dark."""
    page.click(".pm-face >> nth=0")
    asked(page, "a photo of a woman in the snow", 2, 7)
    page.click(".pm-card >> nth=0")
    page.click("#pm-compare button")
    page.click("#pm-compare-draw")
    drawn(page)
    kept(page, to / "ui_dark.png")


def phone(page: Page, to: Path) -> None:
    """The stacked parts, in Chinese."""
    page.click("#pm-lang [data-id=zh]")
    page.wait_for_timeout(1500)
    kept(page, to / "ui_phone.png")


def main() -> None:
    """Draw all pictures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--chromium", default="/usr/bin/chromium", help="the browser's program")
    args = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        served(Engine.open(), Path(folder) / "desk") as address,
        sync_playwright() as play,
    ):
        browser = play.chromium.launch(executable_path=args.chromium, args=["--no-sandbox"])
        with opened(browser, address) as page:
            photos(page, Path(folder), args.out)
        with opened(browser, address) as page:
            whole(page, args.out)
        with opened(browser, address, color_scheme="dark") as page:
            compared(page, args.out)
        with opened(
            browser, address, viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True
        ) as page:
            phone(page, args.out)
        browser.close()


if __name__ == "__main__":
    main()
