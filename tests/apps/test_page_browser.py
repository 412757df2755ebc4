"""The page in a real browser, from dropped photos to a downloaded picture, on the bundled model."""

import asyncio
import gc
import os
import threading
import time
import warnings
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from PIL import Image, ImageEnhance

from photomaker import weights
from photomaker.studio.desk.desk import Desk
from photomaker.studio.engine import Engine

pytest.importorskip("gradio")
sync_api = pytest.importorskip("playwright.sync_api")

CHROMIUM = Path("/usr/bin/chromium")
ADA = sorted((weights.ASSETS / "people" / "ada").glob("*.png"))
TOKEN = "a-token-of-thirty-characters-x"
LONG = 30_000
"""Milliseconds that a step of the way may take on a busy machine."""
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="no chromium"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.skipif(not (weights.SMALL / "faces").is_dir() or not ADA, reason="no bundled weights"),
]


@contextmanager
def _untidy():
    """Gradio leaves event loops unclosed, which would be told in some later test."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            yield
        finally:
            asyncio.set_event_loop(None)
            gc.collect()


class Served:
    """The page on a port of its own."""

    def __init__(self, engine, folder, tokens=None, visitors=False):
        import uvicorn

        from photomaker.apps.serve import bound
        from photomaker.apps.server import ServerSettings
        from photomaker.apps.ui import app_of

        self.desk = Desk(engine, folder)
        self._socket = bound("127.0.0.1", 0)
        self.address = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        with _untidy():
            app = app_of(self.desk, None if visitors else ServerSettings(tokens))
        self._server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]})
        self._thread.start()
        while not self._server.started:
            time.sleep(0.02)

    def close(self):
        self.desk.stop()
        self._server.should_exit = True
        with _untidy():
            self._thread.join()
            self._socket.close()
            self.desk.close()


@pytest.fixture(scope="module", autouse=True)
def few_steps():
    """Pictures that come sooner; how good they are is tested elsewhere."""
    from photomaker.apps.page import widgets

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(widgets, "USUAL_STEPS", 6)
        yield


@pytest.fixture(scope="module")
def engine():
    engine = Engine.open()
    assert engine.method
    return engine


@pytest.fixture(scope="module")
def served(engine, tmp_path_factory):
    os.environ["GRADIO_TEMP_DIR"] = str(tmp_path_factory.mktemp("uploads"))
    served = Served(engine, tmp_path_factory.mktemp("desk"))
    yield served
    served.close()


@pytest.fixture(scope="module")
def browser():
    with _untidy(), sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(served, browser):
    """The page, in a browser that notes what goes wrong and what is fetched from elsewhere."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, locale="en-GB")
    context.set_default_timeout(LONG)
    page = context.new_page()
    page.wrong = []
    page.on("pageerror", lambda error: page.wrong.append(str(error)))
    page.on("console", lambda line: page.wrong.append(line.text) if line.type == "error" else None)
    page.on(
        "request", lambda request: page.wrong.append(request.url) if _foreign(request.url, served) else None
    )
    page.goto(served.address)
    page.wait_for_selector(".pm-example")
    yield page
    assert page.wrong == []
    context.close()


def _foreign(url, served):
    return not url.startswith((served.address, "data:", "blob:"))


def _drawn(page):
    page.wait_for_selector("#pm-cancel", state="visible")
    page.wait_for_selector("#pm-make", state="visible")


def _files(tmp_path):
    dark, text = tmp_path / "dark.png", tmp_path / "letter.txt"
    ImageEnhance.Brightness(Image.open(ADA[2]).convert("RGB")).enhance(0.12).save(dark)
    text.write_text("Dear Ada")
    return [str(one) for one in (*ADA[:3], dark, text)]


def test_from_dropped_photos_to_a_downloaded_picture(page, served, tmp_path):
    # mistakes first: nobody, then nothing that was written, each told in one sentence
    page.click("#pm-make")
    page.wait_for_selector("text=Choose a person first")
    page.set_input_files("#pm-drop input[type=file]", _files(tmp_path))
    page.wait_for_selector("text=letter.txt cannot be read as a picture")
    assert page.locator(".pm-photo").count() == 4
    assert page.locator(".pm-photo.pm-good").count() == 3
    assert "Too dark" in page.inner_text(".pm-photo >> nth=3")
    page.click(".pm-photo >> nth=3 >> .pm-x")
    page.wait_for_selector("text=All 3 photos are good")
    page.fill("#pm-name :is(input, textarea)", "Ada")
    page.fill("#pm-consent :is(input, textarea)", "Ada, today, for this test")
    page.click("#pm-save")
    page.wait_for_selector("text=Ada is saved. Now describe the picture.")
    assert page.get_attribute(".pm-face", "aria-pressed") == "true"
    page.click("#pm-make")
    page.wait_for_selector("text=Write what the picture should show")
    page.fill("#pm-prompt textarea", "a mountain")
    page.wait_for_selector("text=Name the person with one word")
    page.fill("#pm-prompt textarea", "a photo of a woman in the snow")
    page.wait_for_selector("text=Ada replaces “woman”.")
    assert page.inner_text(".pm-read mark") == "woman"

    # two pictures, with previews on the way
    page.fill("#pm-count input[type=number]", "2")
    page.fill("#pm-seed :is(input, textarea)", "7")
    page.click("#pm-make")
    page.wait_for_selector(".pm-coming img")
    page.wait_for_selector("#pm-make", state="visible")
    assert page.locator(".pm-card[data-id] img").count() == 2
    assert "Best likeness" in page.inner_text(".pm-card >> nth=0")
    assert "%" in page.inner_text(".pm-verdict >> nth=0")
    assert page.locator(".pm-thumb").count() == 2

    # the chosen one is downloaded as it was saved
    page.click(".pm-card >> nth=0")
    page.wait_for_selector(".pm-chosen")
    with page.expect_download() as coming:
        page.click("#pm-chosen a[download]")
    seeds = {f"Ada-{seed}.png" for seed in (7, 8)}
    assert coming.value.suggested_filename in seeds
    got = Path(coming.value.path()).read_bytes()
    id_ = page.get_attribute(".pm-card >> nth=0", "data-id")
    assert got == served.desk.picture_file("local", id_).read_bytes()
    assert b"trainedAlgorithmicMedia" in got
    assert b"Ada, today, for this test" in got

    # and drawn again: the same picture; then it is deleted
    page.click("#pm-again")
    _drawn(page)
    assert page.locator(".pm-thumb").count() == 3
    page.once("dialog", lambda dialog: dialog.accept())
    page.click(".pm-card >> nth=0")
    page.click("#pm-chosen [data-act=delete]")
    page.wait_for_selector("text=The picture is deleted.")
    assert page.locator(".pm-thumb").count() == 2
    assert len(served.desk.pictures("local")) == 2


def test_one_click_is_enough_by_keyboard_and_in_chinese(page, served):
    page.click("#pm-lang [data-id=zh]")
    page.wait_for_selector("text=图片会出现在这里。")
    page.focus(".pm-example >> nth=1")
    page.keyboard.press("Enter")
    _drawn(page)
    assert page.inner_text(".pm-face[aria-pressed=true]").strip() == "Ben"
    assert "完成" in page.inner_text("#pm-status")
    page.reload()
    page.wait_for_selector("text=怎么画")
    assert page.locator(".pm-thumb").count() >= 2


def test_two_settings_side_by_side_and_a_cancel(page):
    page.click(".pm-example >> nth=0")
    _drawn(page)
    page.click(".pm-card >> nth=0")
    page.click("#pm-compare button")
    page.click("#pm-compare-draw")
    _drawn(page)
    assert page.locator(".pm-label").all_inner_texts() == ["As I wrote it", "Pixel art"]
    page.click("#pm-more button")
    page.fill("#pm-more input[type=number] >> nth=0", "60")
    page.fill("#pm-count input[type=number]", "8")
    page.click("#pm-make")
    page.wait_for_selector(".pm-coming img")
    page.click("#pm-cancel")
    page.wait_for_selector("text=Cancelled; finished pictures stay.")
    assert page.is_visible("#pm-make")


def test_two_people_are_mixed(page, served):
    from photomaker.apps.page.actions import Actions

    for name in ("ada", "ben"):
        Actions(served.desk).bundled_person("local", name)
    page.reload()
    page.click("#pm-mix button")
    for at, name in enumerate(("Ada", "Ben")):
        page.click(f"#pm-mix .pm-two input >> nth={at}")
        page.click(f"[role=option][aria-label={name}] >> nth=0")
    page.click("#pm-mix-save")
    page.wait_for_selector("text=Ada and Ben is saved")
    assert page.inner_text(".pm-face[aria-pressed=true]").strip() == "Ada and Ben"
    page.once("dialog", lambda dialog: dialog.accept())
    page.hover(".pm-person >> nth=0")
    page.click(".pm-person >> nth=0 >> .pm-x")
    page.wait_for_selector("text=Ada and Ben is deleted.")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_sticks_out_on_a_phone(served, browser, scheme):
    context = browser.new_context(
        viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True, color_scheme=scheme
    )
    page = context.new_page()
    page.goto(served.address, timeout=LONG)
    page.wait_for_selector(".pm-example", timeout=LONG)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    tops = [page.locator(selector).bounding_box()["y"] for selector in ("#pm-drop", "#pm-prompt", "#pm-make")]
    assert tops == sorted(tops)
    assert tops[-1] < page.locator("#pm-grid").bounding_box()["y"]
    context.close()


def test_a_page_with_tokens_asks_for_one(engine, tmp_path, browser):
    from photomaker.apps.server.tokens import Tokens

    served = Served(engine, tmp_path, Tokens(((TOKEN, "ada"),)))
    try:
        assert httpx.get(f"{served.address}/ui/config").status_code == 401
        assert httpx.post(f"{served.address}/ui/gradio_api/queue/join", json={}).status_code == 401
        page = browser.new_page()
        page.set_default_timeout(LONG)
        page.goto(served.address)
        for given in ("wrong", TOKEN):
            page.fill("#token", given)
            page.click("button")
            if given == "wrong":
                page.wait_for_selector("[role=alert]")
        page.click(".pm-example >> nth=0")
        page.wait_for_selector(".pm-card[data-id]")
        assert len(served.desk.people("ada")) == 1
        assert served.desk.people("local") == []
        page.close()
    finally:
        served.close()


def test_visitors_do_not_see_each_other(engine, tmp_path, browser):
    served = Served(engine, tmp_path, visitors=True)
    try:
        assert httpx.get(f"{served.address}/v1/identities").status_code == 404
        seen = []
        for _ in range(2):
            page = browser.new_page()
            page.set_default_timeout(LONG)
            page.goto(served.address)
            page.wait_for_selector(".pm-example")
            seen.append(page.locator(".pm-face").count())
            page.click(".pm-example >> nth=0")
            page.wait_for_selector(".pm-face")
            page.close()
        assert seen == [0, 0]
    finally:
        served.close()
