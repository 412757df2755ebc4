"""The real `openai` package against the server, with fakes behind it and with the bundled model."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import httpx
import openai
import pytest
from PIL import Image
from tests.apps.served import PROMPT, served
from tests.studio import fakes

from photomaker import weights
from photomaker.apps.server import ServerSettings
from photomaker.apps.server.tokens import LOCAL, Tokens
from photomaker.studio.desk.desk import Desk
from photomaker.studio.desk.records import Upload

ADA = sorted((Path(__file__).parents[2] / "examples" / "ada").glob("*.png"))
TOKEN = "t" * 32


@pytest.fixture
def made(monkeypatch):
    return fakes.stepping_engine(monkeypatch)


@pytest.fixture
def desk(made, tmp_path):
    yield (desk := Desk(made[0], tmp_path / "desk"))
    made[1].gate.set()
    desk.close()


@pytest.fixture
def ai(desk):
    settings = ServerSettings(Tokens(((TOKEN, LOCAL),)), hosts=None)
    with (
        served(desk, settings) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key=TOKEN, max_retries=0) as ai,
    ):
        yield ai


def ada(desk):
    return desk.add_person(LOCAL, [Upload("1.png", fakes.png())], "Ada")


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def test_a_saved_person_is_a_model(ai, desk):
    ada(desk)
    assert [one.id for one in ai.models.list()] == ["photomaker", "photomaker:Ada"]
    answer = ai.images.generate(model="photomaker:Ada", prompt=PROMPT, n=3, response_format="b64_json")
    assert len(answer.data) == 3
    assert answer.created > 0
    assert [opened(base64.b64decode(one.b64_json)).text["seed"] for one in answer.data] == ["0", "1", "2"]
    assert answer.data[0].revised_prompt == PROMPT
    assert answer.data[0].url is None


def test_urls_are_answered_without_a_token_and_only_for_their_picture(ai, desk):
    person = ada(desk)
    more = {"identity": person.id, "seed": 7, "steps": 2}
    answer = ai.images.generate(
        model="photomaker", prompt=PROMPT, n=2, response_format="url", extra_body=more
    )
    first, second = (one.url for one in answer.data)
    assert answer.data[0].b64_json is None
    assert opened(httpx.get(first).content).text["seed"] == "7"
    ticket = first.partition("?")[2]
    assert httpx.get(f"{second.partition('?')[0]}?{ticket}").status_code == 404
    assert httpx.get(first.partition("?")[0]).status_code == 401


def test_an_answer_has_both_where_nothing_is_said(ai, desk):
    ada(desk)
    (one,) = ai.images.generate(
        model="photomaker:Ada", prompt=PROMPT, size="auto", quality="high", user="u"
    ).data
    assert one.b64_json
    assert one.url


def test_several_photos_of_a_person_are_an_edit(ai, desk):
    photos = [("1.png", fakes.png()), ("2.png", fakes.png(who=5))]
    for _ in range(2):  # the second time the person is known
        answer = ai.images.edit(image=photos, prompt="a photo of a woman", n=2, model="photomaker")
        assert [opened(base64.b64decode(one.b64_json)).text["prompt"] for one in answer.data] == [
            "a photo of a woman img"
        ] * 2
    (person,) = desk.people(LOCAL)
    assert person.photos == 2
    assert ai.images.edit(image=("1.png", fakes.png()), prompt=PROMPT).data[0].b64_json


def test_a_stream_shows_pictures_while_they_are_drawn_and_then_as_files(ai, desk, made):
    ada(desk)
    made[1].pace = 0.1
    events = list(
        ai.images.generate(
            model="photomaker:Ada", prompt=PROMPT, n=5, stream=True, partial_images=2, extra_body={"steps": 6}
        )
    )
    partial = [one for one in events if one.type == "image_generation.partial_image"]
    done = [one for one in events if one.type == "image_generation.completed"]
    assert len(partial) + len(done) == len(events)
    assert [one.partial_image_index for one in partial] == [0] * 4 + [1] * 4 + [0, 1]
    assert opened(base64.b64decode(partial[0].b64_json)).format == "JPEG"
    assert [opened(base64.b64decode(one.b64_json)).text["seed"] for one in done] == list("01234")
    assert done[0].usage.total_tokens == 0


def test_a_stream_without_looks_has_pictures_alone(ai):
    (one,) = ai.images.edit(image=("1.png", fakes.png()), prompt=PROMPT, stream=True)
    assert (one.type, one.output_format) == ("image_edit.completed", "png")


def test_a_failure_in_a_stream_is_the_clients_own_error(ai, desk, made):
    ada(desk)
    made[1].fails = MemoryError()
    with pytest.raises(openai.APIError, match="ask for fewer or smaller pictures"):
        list(ai.images.generate(prompt=PROMPT, model="photomaker:Ada", stream=True))


def test_the_job_of_a_stream_that_nobody_reads_is_cancelled(ai, desk, made):
    ada(desk)
    made[1].gate.clear()
    stream = ai.images.generate(prompt=PROMPT, model="photomaker:Ada", stream=True, partial_images=1)
    assert made[1].begun.wait(10)
    stream.close()
    (job,) = desk.jobs(LOCAL)
    made[1].pace = 0.1
    made[1].gate.set()
    assert list(desk.events(LOCAL, job.id))[-1].state == "cancelled"


def test_a_saved_person_is_drawn_into_a_scene_where_the_mask_is_clear(ai, desk, monkeypatch):
    monkeypatch.setattr(fakes.SteppingMethod, "takes", frozenset({"start picture", "mask"}))
    ada(desk)
    mask = Image.new("RGBA", (64, 64), (9, 9, 9, 255))
    mask.paste((0, 0, 0, 0), (16, 0, 32, 64))
    data = io.BytesIO()
    mask.save(data, "PNG")
    scene, edit = ("scene.png", fakes.png(who=7)), {"prompt": PROMPT, "model": "photomaker:Ada"}
    (one,) = ai.images.edit(image=scene, mask=("m.png", data.getvalue()), **edit).data
    assert "mask" in opened(base64.b64decode(one.b64_json)).text
    order = desk.jobs(LOCAL)[0].order
    assert order.strength == 1
    with Image.open(desk.picture_file(LOCAL, order.mask)) as kept:
        assert kept.getbbox() == (16, 0, 32, 64)
    ai.images.edit(image=scene, **edit, extra_body={"strength": 0.3})
    assert (desk.jobs(LOCAL)[0].order.strength, desk.jobs(LOCAL)[0].order.mask) == (0.3, None)
    for words, asked in (
        ("no transparent pixels", {"image": scene, "mask": ("m.png", fakes.png())}),
        ("2 images", {"image": [scene, scene]}),
        ("strength is 2", {"image": scene, "extra_body": {"strength": 2}}),
    ):
        with pytest.raises(openai.UnprocessableEntityError, match=words):
            ai.images.edit(**edit, **asked)
    assert len(desk.people(LOCAL)) == 1


def test_mistakes_come_as_the_clients_own_errors(ai, desk):
    ada(desk)
    unprocessable, missing = openai.UnprocessableEntityError, openai.NotFoundError
    for kind, words, asked in (
        (unprocessable, "no person is named", {"model": "photomaker"}),
        (missing, "no person 'Eve'", {"model": "photomaker:Eve"}),
        (missing, "no model 'dall-e-3'", {"model": "dall-e-3"}),
        (unprocessable, "class word", {"prompt": "the weather"}),
        (unprocessable, "65 pictures", {"n": 65}),
        (unprocessable, "size is 'huge'", {"size": "huge"}),
        (unprocessable, "output_format is 'webp'", {"output_format": "webp"}),
    ):
        with pytest.raises(kind, match=words):
            ai.images.generate(**{"model": "photomaker:Ada", "prompt": PROMPT, **asked})
    for words, asked in (
        ("not a picture", {"image": ("a.png", b"none")}),
        ("n is 'x'", {"n": "x"}),
        ("take no mask", {"mask": ("m.png", fakes.png())}),
    ):
        with pytest.raises(unprocessable, match=words):
            ai.images.edit(**{"image": ("a.png", fakes.png()), "prompt": PROMPT, **asked})
    with pytest.raises(openai.AuthenticationError, match="needs a token"):
        ai.with_options(api_key="x" * 32).models.list()


def test_a_failed_job_is_an_error_of_the_servers(ai, desk, made):
    ada(desk)
    made[1].fails = MemoryError()
    with pytest.raises(openai.InternalServerError, match="ask for fewer or smaller pictures"):
        ai.images.generate(prompt=PROMPT, model="photomaker:Ada")


def test_the_job_of_a_client_that_went_away_is_cancelled(ai, desk, made):
    ada(desk)
    made[1].gate.clear()
    with pytest.raises(openai.APITimeoutError):
        ai.with_options(timeout=0.5).images.generate(prompt=PROMPT, model="photomaker:Ada")
    (job,) = desk.jobs(LOCAL)
    made[1].pace = 0.1
    made[1].gate.set()
    assert list(desk.events(LOCAL, job.id))[-1].state == "cancelled"


@pytest.mark.bundled
@pytest.mark.skipif(not weights.SMALL.is_dir(), reason="the bundled weights are not trained yet")
def test_the_bundled_model_answers_a_real_client(tmp_path):
    from photomaker.studio.engine import Engine

    desk = Desk(Engine.open(), tmp_path / "desk")
    with served(desk) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as ai:
        photos = [path.open("rb") for path in ADA]
        answer = ai.images.edit(
            image=photos, prompt="a photo of a woman in the snow", n=2, size="96x128", extra_body={"steps": 3}
        )
        for photo in photos:
            photo.close()
        first, second = (opened(base64.b64decode(one.b64_json)) for one in answer.data)
        assert first.size == second.size == (96, 128)
        assert first.tobytes() != second.tobytes()
        assert first.text["model"] == "photomaker small"
        assert "likeness" in first.text
        with pytest.raises(openai.UnprocessableEntityError, match="as many pixels as 2048 x 2048"):
            ai.images.edit(image=ADA[0], prompt="a photo of a woman", size="4096x2048")
