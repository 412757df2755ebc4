"""The page without a browser: its texts, its verbs on a desk, mistakes in one sentence, links and the door."""

import asyncio
import re
import string
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

pytest.importorskip("gradio")

from photomaker import weights
from photomaker.apps.page import views
from photomaker.apps.page.actions import IDEAS, Actions
from photomaker.apps.page.files import Links
from photomaker.apps.page.gate import COOKIE, Badge
from photomaker.apps.page.mistakes import Mistake, sentence
from photomaker.apps.page.progress import Progress, progress
from photomaker.apps.page.texts import LANGUAGES, TEXTS, say, spoken
from photomaker.apps.page.wishes import LATEST, Wish, merge_of, order_of, with_setting
from photomaker.errors import NotThere, QueueFull, SettingsError
from photomaker.studio.desk.desk import Desk
from photomaker.studio.desk.records import Ended, Picture, PictureDone, Stepped, Told, Waiting
from photomaker.studio.engine import Engine
from photomaker.studio.orders.plain import PlainOrder
from photomaker.studio.orders.styles import styles
from photomaker.studio.photos import coach

SOURCES = Path(views.__file__).parent
ADA = sorted((weights.ASSETS / "people" / "ada").glob("*.png"))
bundled = pytest.mark.skipif(not (weights.SMALL / "faces").is_dir() or not ADA, reason="no bundled weights")
QUICK = {"steps": 4, "count": 2, "seed": "7"}


# ---- texts


def test_every_text_is_there_in_every_language_with_the_same_braces():
    fields = string.Formatter().parse
    for key, texts in TEXTS.items():
        assert len(texts) == len(LANGUAGES), key
        assert all(text.strip() for text in texts), key
        braces = [{name for _, name, _, _ in fields(text) if name} for text in texts]
        assert all(one == braces[0] for one in braces), key


def test_chinese_is_chinese():
    same = {key for key, (english, chinese) in TEXTS.items() if english == chinese}
    assert same == {"title"}
    assert all(re.search(r"[\u4e00-\u9fff]", TEXTS[key][1]) for key in TEXTS.keys() - same)


def test_what_the_coach_and_the_styles_know_has_texts():
    kinds = {value for name, value in vars(coach).items() if name.isupper() and isinstance(value, str)}
    assert {"blurred", "no face"} <= kinds
    for kind in kinds:
        assert kind in TEXTS
        assert f"{kind}!" in TEXTS
    assert set(styles()) <= set(TEXTS)


def test_every_text_that_the_page_says_exists():
    said = set()
    for file in SOURCES.glob("*.py"):
        said |= set(
            re.findall(r'(?:say\(\w+|say\("\w+"|Mistake\()(?:, )?"([\w ]+)"', file.read_text("utf-8"))
        )
    assert len(said) > 40
    assert said <= set(TEXTS)


@pytest.mark.parametrize(
    ("accepted", "language"),
    [("zh-CN,zh;q=0.9,en;q=0.8", "zh"), ("de-DE,en;q=0.5", "en"), ("fr", "en"), ("", "en"), ("en-GB", "en")],
)
def test_the_browsers_language_is_spoken(accepted, language):
    assert spoken(accepted) == language


# ---- wishes


@pytest.mark.parametrize("own", [0.1, 0.5, 0.9])
def test_the_slider_runs_from_the_words_to_the_person_by_way_of_the_models_own(own):
    assert merge_of(50, own) is None
    assert merge_of(100, own) == 0
    assert merge_of(0, own) == max(own, LATEST)
    path = [merge_of(at, own) for at in (0, 25, 49, 51, 75, 100)]
    assert path == sorted(path, reverse=True)


def test_a_form_becomes_an_order():
    wish = Wish(
        "idn_1", " a man ", "sketch", "portrait", " hat ", 100, 3, " 12 ", "ddim", 30, True, "3", True
    )
    order = order_of(wish, 0.1)
    assert order == PlainOrder(
        ("idn_1",), ("a man",), n=3, seed=12, negative="hat", size="portrait", style="sketch", scheduler="ddim",
        steps=30, speed="fast", guidance=3.0, merge=0.0, redraw="auto",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("wish", "key"),
    [
        (Wish("", "a man"), "no_person"),
        (Wish("idn_1", "  "), "no_prompt"),
        (Wish("idn_1", "a man", seed="seven"), "no_number"),
        (Wish("idn_1", "a man", seed="-1"), "no_number"),
        (Wish("idn_1", "a man", seed="9" * 30), "no_number"),
    ],
)
def test_what_a_form_lacks_is_told_in_one_sentence(wish, key):
    with pytest.raises(Mistake) as caught:
        order_of(wish, 0.1)
    assert caught.value.key == key
    for language in LANGUAGES:
        told = sentence(language, caught.value)
        assert "\n" not in told
        assert told == say(language, key, **caught.value.values)


def test_a_setting_is_changed_and_nothing_else():
    order = PlainOrder(("a",), ("a man",), seed=3)
    assert with_setting(order, "style", "sketch", 0.1) == PlainOrder(
        ("a",), ("a man",), seed=3, style="sketch"
    )
    assert with_setting(order, "steps", "5", 0.1).steps == 5
    assert with_setting(order, "guidance", "", 0.1).guidance is None
    assert with_setting(order, "scheduler", "", 0.1).scheduler is None
    assert with_setting(order, "likeness", "100", 0.1).merge == 0


def test_errors_from_below_are_one_sentence_in_both_languages():
    error = SettingsError("the size is 5;\n give another.")
    assert sentence("en", error) == "The size is 5; give another."
    assert sentence("zh", error).startswith("出错了")
    assert "30" in sentence("zh", QueueFull("full", 30))
    assert sentence("en", NotThere("x")) == say("en", "gone")


# ---- views


def told(*events, total=2):
    found = Progress(total)
    for event in events:
        found = found.after(event)
    return found


def drawn(number, likeness):
    id_ = f"pic_{number:032x}"
    return Picture(id_, 1.0, 8, 8, "job_1", "Ada", "a woman img", number, likeness, "", True, 0.5)


def test_progress_gathers_events():
    at_step = told(Waiting(3), Told("a note"), Stepped(5, 10, 0, 2, (b"a", b"b")))
    assert at_step.share == pytest.approx(0.5)
    assert at_step.place is None
    one = at_step.after(PictureDone(drawn(1, None), 1, 2))
    assert one.previews == (b"b",)
    two = one.after(PictureDone(drawn(2, 0.4), 2, 2)).after(Ended("done", "", 2))
    assert two.share == 1
    assert [picture.seed for picture in two.ranked] == [2, 1]


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_status_is_one_line(language):
    for at, words in (
        (told(Waiting(3)), "2"),
        (told(Stepped(5, 10, 0, 2, (b"a", b"b"))), "50 %"),
        (told(Ended("failed", "no memory.", 0)), "no memory"),
        (told(Ended("cancelled", "", 0)), say(language, "cancelled")),
    ):
        assert words in views.status(language, at)


def test_what_visitors_write_is_escaped():
    evil = "<img src=x onerror=alert(1)>"
    links = Links(None)
    picture = Picture("pic_" + "0" * 32, 1.0, 8, 8, "job", evil, evil, 1, 0.5, evil, True, 0.5)
    pieces = [
        views.message(evil),
        views.pictures("en", [picture], links, labels=[evil]),
        views.chosen("en", picture, links),
        views.history("en", [picture], links),
        views.reading("en", views.Reading(evil, evil, evil, (evil,)), evil),
    ]
    for piece in pieces:
        assert evil not in piece
        assert "onerror=" not in re.sub(r"&lt;.*?&gt;", "", piece)


# ---- the door


def test_a_cookie_stands_for_its_owner_and_cannot_be_made_up():
    badge = Badge({"secret-token-of-ada": "ada"}.get)
    made = badge.made("ada")
    assert badge.read({COOKIE: made}) == "ada"
    for forged in ("", "ada", made.replace("ada", "ben", 1), made[:-1], Badge(None).made("ada")):
        assert badge.read({COOKIE: forged}) is None


# ---- on a desk


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    with Desk(Engine.open(), tmp_path_factory.mktemp("desk")) as desk:
        yield desk


@pytest.fixture(scope="module")
def actions(desk):
    return Actions(desk)


@pytest.fixture(scope="module")
def ada(actions):
    return actions.save("me", ADA, " Ada ")


@pytest.fixture(scope="module")
def made(actions, ada):
    return finished(actions, "me", [actions.order(Wish(ada.id, "a photo of a woman in the snow", **QUICK))])


def finished(actions, owner, orders):
    async def followed():
        async for at in progress(actions.desk, owner, actions.submit(owner, orders)):
            last = at
        return last

    return asyncio.run(followed())


@bundled
def test_photos_are_coached(actions):
    found = actions.coach([ADA[0], ADA[1], ADA[1]])
    assert found.judged
    assert [one.keep for one in found.photos] == [True, True, False]
    assert found.photos[2].kinds == ("near duplicate",)
    for language in LANGUAGES:
        told = views.coaching(language, found)
        assert say(language, "near duplicate") in told
        assert told.count("<img") == 3


@bundled
def test_a_person_is_saved_and_their_photos_are_not_kept(actions, ada, desk):
    assert ada.name == "Ada"
    assert ada.photos == len(ADA)
    assert desk.people("me")[-1].id == ada.id
    assert desk.people("somebody else") == []


@bundled
def test_consent_travels_into_every_picture(actions, desk):
    note = "Ada, 28 November 2026, pictures for her blog"
    person = actions.save("agreed", ADA[:1], "Ada", f" {note} ")
    wish = Wish(person.id, "a photo of a woman in the snow", **QUICK | {"count": 1})
    (picture,) = finished(actions, "agreed", [actions.order(wish)]).pictures
    with Image.open(desk.picture_file("agreed", picture.id)) as image:
        assert image.text["consent"] == note


@bundled
def test_two_people_stand_side_by_side(actions, ada, desk):
    ben = actions.bundled_person("me", "ben")
    prompt = "a photo of a woman and a man in the snow"
    wish = Wish(ada.id, prompt, **QUICK | {"count": 1}, beside=ben.id)
    order = actions.order(wish)
    assert (order.people, order.together, order.layout) == ((ada.id, ben.id), True, ("left", "right"))
    (picture,) = finished(actions, "me", [order]).pictures
    assert picture.person == "Ada, Ben"
    assert actions.again("me", picture.id).people == order.people
    for key, changed in (("same_person", {"beside": ada.id}), ("read_two", {"prompt": "a photo of a woman"})):
        with pytest.raises(Mistake) as told:
            actions.order(replace(wish, **changed))
        assert told.value.key == key


@bundled
def test_mistakes_with_photos(actions, tmp_path):
    text, blank = tmp_path / "a.txt", tmp_path / "blank.png"
    text.write_text("no picture")
    Image.new("RGB", (200, 200), "green").save(blank)
    for files, key in (([], "no_photos"), ([text], "no_picture_file"), ([blank], "no_faces_at_all")):
        with pytest.raises(Mistake) as caught:
            actions.save("mistaken", files, "X")
        assert caught.value.key == key
    with pytest.raises(Mistake, match="choose the best 16"):
        actions.save("mistaken", [ADA[0]] * 17, "X")
    assert actions.desk.people("mistaken") == []


@bundled
def test_a_prompt_is_read(actions):
    read = actions.read("a photo of a Woman with a dragon")
    assert (read.before, read.word, read.after) == ("a photo of a ", "Woman", " with a dragon")
    assert read.unknown == ("dragon",)
    assert actions.read("  ") is None
    assert actions.read("a mountain").word == ""
    assert "<mark>Woman</mark>" in views.reading("en", read, "Ada")
    assert "“dragon”" in views.reading("zh", read, "")


@bundled
def test_nobody_in_the_prompt_is_a_mistake(actions, ada):
    with pytest.raises(Mistake) as caught:
        actions.order(Wish(ada.id, "a mountain in the snow"))
    assert caught.value.key == "read_none"


@bundled
def test_ideas_are_about_whom_the_prompt_is_about(actions):
    assert actions.idea("idea_oil", "a girl") == "an oil painting of a girl in the mountains"
    for name in IDEAS:
        assert actions.read(actions.idea(name, "")).unknown == ()


@bundled
def test_pictures_are_drawn_and_told(made, desk):
    assert made.ended.state == "done"
    assert len(made.pictures) == 2
    assert {one.seed for one in made.pictures} == {7, 8}
    assert made.ranked[0].likeness >= made.ranked[1].likeness
    assert desk.picture_file("me", made.pictures[0].id).is_file()


@bundled
def test_unknown_words_are_not_told_twice(actions, ada):
    order = actions.order(Wish(ada.id, "a photo of a woman with a dragon", steps=4, count=1))
    assert not any("dragon" in note for note in finished(actions, "me", [order]).notes)


@bundled
def test_the_same_again_is_the_same(actions, made, desk):
    first = made.pictures[0]
    again = finished(actions, "me", [actions.again("me", first.id)]).pictures[0]
    assert again.id != first.id
    files = [desk.picture_file("me", one.id) for one in (first, again)]
    from PIL import Image, ImageChops

    apart = ImageChops.difference(Image.open(files[0]), Image.open(files[1]))
    # the first came in a batch: sums in another order may round otherwise
    assert max(high for _, high in apart.getextrema()) <= 1


@bundled
def test_variations_comparisons_and_redrawing_are_orders_of_the_same(actions, made):
    id_ = made.pictures[0].id
    again = actions.again("me", id_)
    varied = actions.variations("me", id_)
    assert (varied.n, varied.seeds, varied.prompts) == (4, (), again.prompts)
    assert actions.redrawn("me", id_).redraw == "128"
    one, other = actions.compared("me", id_, "style", ["none", "sketch"])
    assert (one, other.style, other.seeds) == (again, "sketch", again.seeds)
    for values in (["sketch", "sketch"], [None, "sketch"]):
        with pytest.raises(Mistake):
            actions.compared("me", id_, "style", values)


@bundled
def test_two_settings_come_as_one_piece_of_work(actions, made):
    orders = actions.compared("me", made.pictures[0].id, "steps", ["4", "5"])
    both = finished(actions, "me", orders)
    assert (both.total, len(both.pictures), both.ended.state) == (2, 2, "done")


@bundled
def test_what_is_somebody_elses_is_gone(actions, made, ada):
    for verb in (actions.again, actions.variations, actions.redrawn):
        with pytest.raises(NotThere):
            verb("somebody else", made.pictures[0].id)
    with pytest.raises(NotThere):
        actions.submit("somebody else", [actions.order(Wish(ada.id, "a woman", **QUICK))])


@bundled
def test_a_cancel_ends_the_progress(actions, ada):
    order = actions.order(Wish(ada.id, "a woman", steps=60, count=8))
    job = actions.submit("me", [order])[0]

    async def followed():
        async for at in progress(actions.desk, "me", [job]):
            actions.desk.cancel("me", job)
            last = at
        return last

    assert actions.unfinished("me").id == job
    assert asyncio.run(followed()).ended.state == "cancelled"
    assert actions.unfinished("me") is None


@bundled
def test_two_people_are_mixed(actions, ada):
    ben = actions.bundled_person("me", "ben")
    assert actions.bundled_person("me", "ben").id == ben.id
    mixed = actions.mix("me", ada.id, ben.id, 25, "Between")
    assert (mixed.name, mixed.photos) == ("Between", ada.photos + ben.photos)
    with pytest.raises(Mistake):
        actions.mix("me", ada.id, ada.id, 25, "")


@bundled
def test_examples_need_no_photo(actions):
    for example in actions.examples:
        person, wish = actions.example("guest", example.name)
        assert actions.desk.plan("guest", actions.order(wish)).prompts[0].startswith("a ")
        assert actions.example("guest", example.name)[0].id == person.id
    assert len(actions.desk.people("guest")) == 3


@bundled
def test_links_lead_to_pictures_until_they_are_deleted(actions, made, desk):
    from fastapi import FastAPI
    from fastapi.testclient import TestClient

    links, app = Links(desk), FastAPI()
    app.include_router(links.router("/ui"))
    client = TestClient(app)
    id_ = made.pictures[1].id
    link = "/ui/" + links.to("picture", id_)
    answer = client.get(link)
    assert answer.content == desk.picture_file("me", id_).read_bytes()
    assert client.get("/ui/" + links.to("small", id_)).status_code == 200
    for forged in (
        link[:-1] + "x",
        link.replace("/picture/", "/portrait/"),
        link.replace(id_, "pic_" + "0" * 32),
    ):
        assert client.get(forged).status_code == 404
    desk.delete_picture("me", id_)
    assert client.get(link).status_code == 404


# ---- the command


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--host", "0.0.0.0"), "needs tokens"),
        (("--visitors", "--token-file", "tokens"), "give only one of them"),
        (("--token-file", "none/such"), "cannot read the tokens"),
        (("--base", "none/such", "--adapter", "x.bin"), "none/such"),
        (("--ttl", "soon"), "time to live"),
    ],
)
def test_mistakes_of_the_command_are_one_line(words, told, tmp_path):
    from typer.testing import CliRunner

    from photomaker.apps.cli import app

    data = ("--data", str(tmp_path / "data"), "--port", "0", "--no-browser")
    result = CliRunner().invoke(app, ["ui", *words, *data], prog_name="photomaker")
    assert result.exit_code == 2
    lines = [line for line in result.stderr.splitlines() if line.startswith("photomaker: ")]
    assert len(lines) == 1
    assert told in lines[0]
    assert "Traceback" not in result.output


def test_a_port_in_use_gives_way_to_the_next_free_one(capsys):
    from photomaker.apps.serve import Served, bound
    from photomaker.apps.ui import _near

    with bound("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with _near(Served(port=port)) as found:
            other = found.getsockname()[1]
    assert port < other < port + 100
    assert f"port {port} is in use; using {other}" in " ".join(capsys.readouterr().err.split())
