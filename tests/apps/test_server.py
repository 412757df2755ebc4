"""The HTTP routes, over a real socket, with fakes behind them."""

from __future__ import annotations

import gc
import io
import json
import socket
import threading
import time
from contextlib import ExitStack, suppress

import httpx
import pytest
from PIL import Image
from tests.apps.served import PROMPT, client, events, problem, served
from tests.studio import fakes

from photomaker.apps.server import ServerSettings, create_app
from photomaker.apps.server.schemas import LoraIn, OrderIn, StructureIn, StyleIn
from photomaker.apps.server.tokens import read_tokens
from photomaker.errors import SettingsError
from photomaker.studio.desk.desk import Desk
from photomaker.studio.desk.limits import Limits
from photomaker.studio.orders.plain import PlainLora, PlainOrder, PlainStructure, PlainStyle
from photomaker.types import Identity

TOKENS = ("a" * 32, "b" * 32)


@pytest.fixture
def made(monkeypatch):
    return fakes.stepping_engine(monkeypatch)


@pytest.fixture
def method(made):
    yield made[1]
    made[1].gate.set()


@pytest.fixture
def start(made, tmp_path):
    with ExitStack() as stack:

        def started(settings=None, token=None, **options):
            desk = Desk(made[0], tmp_path / "desk", **options)
            return stack.enter_context(client(stack.enter_context(served(desk, settings)), token))

        yield started
        made[1].gate.set()


@pytest.fixture
def http(start):
    return start()


def photos(count=2, **more):
    return [("photos", (f"{number}.png", fakes.png(**more), "image/png")) for number in range(1, count + 1)]


def ada(http, name="Ada", **more):
    answer = http.post("/v1/identities", files=photos(**more), data={"name": name})
    assert answer.status_code == 201, answer.text
    return answer.json()


def asked(**more):
    return {"people": ["Ada"], "prompts": [PROMPT], "steps": 2, **more}


def submit(http, **more):
    answer = http.post("/v1/jobs", json=asked(**more))
    assert answer.status_code == 202, answer.text
    return answer.json()


# ---- people


def test_a_person_is_saved_shown_renamed_and_deleted(http):
    person = ada(http)
    assert (person["name"], person["photos"]) == ("Ada", 2)
    assert [one["name"] for one in person["report"]["photos"]] == ["1.png", "2.png"]
    place = f"/v1/identities/{person['id']}"
    assert http.get(place).json() == person
    assert http.get("/v1/identities").json() == [person]
    assert http.get("/v1/identities/Ada").json() == person
    assert http.patch(place, json={"name": "Ada L."}).json()["name"] == "Ada L."
    with Image.open(io.BytesIO(http.get(f"{place}/portrait").content)) as portrait:
        assert portrait.format == "PNG"
    assert http.delete(place).status_code == 204
    problem(http.get(place), 404, "there is no person")
    assert http.get("/v1/identities").json() == []


def test_a_persons_file_is_one_that_the_command_line_reads(http, tmp_path):
    person = ada(http)
    answer = http.get(f"/v1/identities/{person['id']}/file")
    assert f"{person['id']}.safetensors" in answer.headers["content-disposition"]
    (tmp_path / "ada.safetensors").write_bytes(answer.content)
    assert Identity.load(tmp_path / "ada.safetensors").notes["name"] == "Ada"


def test_people_are_mixed(http):
    ada(http)
    ada(http, "Ben", who=255)
    answer = http.post(
        "/v1/identities/mix", json={"first": "Ada", "second": "Ben", "share": 0.25, "name": "Both"}
    )
    assert answer.status_code == 201
    assert answer.json()["report"] is None
    problem(
        http.post("/v1/identities/mix", json={"first": "Ada", "second": "Ben", "share": 2}), 422, "share is 2"
    )
    problem(http.post("/v1/identities/mix", json={"first": "Ada", "second": "Eve"}), 404, "'Eve'")


# ---- jobs and pictures


def test_a_job_is_taken_watched_and_its_pictures_fetched(http):
    ada(http)
    job = submit(http, n=3, seed=5)
    assert (job["state"], job["total"]) in {("queued", 3), ("running", 3), ("done", 3)}
    assert job["order"]["prompts"] == [PROMPT]
    told = events(http, job["id"])
    assert [name for name, *_ in told if name in ("picture", "ended")] == ["picture"] * 3 + ["ended"]
    assert told[-1][1] == {"state": "done", "reason": "", "pictures": 3}
    picture = told[-2][1]["picture"]
    assert picture["seed"] == 7
    assert picture["likeness"] is not None
    assert http.get(f"/v1/jobs/{job['id']}").json()["pictures"][2] == picture
    assert http.get("/v1/jobs").json()[0]["id"] == job["id"]
    answer = http.get(picture["url"])
    assert answer.headers["content-type"] == "image/png"
    with Image.open(io.BytesIO(answer.content)) as image:
        assert image.text["seed"] == "7"
    assert http.get(f"{picture['url']}/about").json() == picture
    assert [one["seed"] for one in http.get("/v1/images", params={"most": 2}).json()] == [7, 6]
    assert http.delete(picture["url"]).status_code == 204
    problem(http.get(picture["url"]), 404, "there is no picture")


@pytest.mark.parametrize("previews", [True, False])
def test_steps_come_while_it_is_drawn(http, method, previews):
    ada(http)
    method.pace = 0.05
    job = submit(http, steps=20)
    steps = [
        data for name, data, _ in events(http, job["id"], params={"previews": previews}) if name == "step"
    ]
    assert steps
    assert steps[-1]["steps"] == 20
    assert all(one["step"] for one in steps)
    shown = [one for step in steps for one in step["previews"]]
    assert bool(shown) == previews
    assert all(one.startswith("data:image/jpeg;base64,") for one in shown)


def test_a_listener_that_comes_back_is_told_the_rest(http):
    ada(http)
    job = submit(http, n=3)
    first = [one for one in events(http, job["id"]) if one[2]]
    again = events(http, job["id"], headers={"Last-Event-ID": first[0][2]})
    assert again == first[1:]
    assert events(http, job["id"], params={"after": first[1][2]}) == first[2:]


def test_a_form_brings_photos_and_pictures_with_the_order(http, method):
    order = {"prompts": [PROMPT], "steps": 1, "start": "upload:sketch", "mask": "upload:mask"}
    files = [
        *photos(),
        ("sketch", ("s.png", fakes.png(who=9), "image/png")),
        ("mask", ("m.png", fakes.png(who=255), "image/png")),
    ]
    answer = http.post("/v1/jobs", data={"order": json.dumps(order)}, files=files)
    problem(answer, 422, "the method fake cannot draw with a mask")
    assert http.get("/v1/identities").json() == []
    answer = http.post(
        "/v1/jobs", data={"order": json.dumps({"prompts": [PROMPT], "steps": 1})}, files=photos()
    )
    assert answer.status_code == 202
    assert answer.json()["order"]["people"] == [http.get("/v1/identities").json()[0]["id"]]
    missing = {"prompts": [PROMPT], "people": ["x"], "start": "upload:nothing"}
    problem(http.post("/v1/jobs", data={"order": json.dumps(missing)}, files=photos()), 422, "upload:nothing")
    for people in ("Ada", 5, {"a": 1}):
        wrong = json.dumps({"prompts": [PROMPT], "people": people})
        problem(http.post("/v1/jobs", data={"order": wrong}, files=photos()), 422, "people in the order is")
    problem(http.post("/v1/jobs", data={"other": "1"}, files=photos()), 422, "no field 'order'")


def test_a_job_is_cancelled_and_twice_is_as_good_as_once(http, method):
    ada(http)
    method.gate.clear()
    job = submit(http, steps=50)
    method.begun.wait(10)
    answers = [http.delete(f"/v1/jobs/{job['id']}") for _ in range(2)]
    assert [one.status_code for one in answers] == [200, 200]
    method.gate.set()
    assert events(http, job["id"])[-1][1]["state"] == "cancelled"
    assert http.delete(f"/v1/jobs/{job['id']}").json()["state"] == "cancelled"
    assert not method.drawn


def test_a_job_is_forgotten_with_its_pictures(http):
    ada(http)
    job = submit(http)
    picture = events(http, job["id"])[-2][1]["picture"]
    assert http.delete(f"/v1/jobs/{job['id']}", params={"forget": True}).status_code == 200
    problem(http.get(f"/v1/jobs/{job['id']}"), 404, "there is no job")
    problem(http.get(picture["url"]), 404, "there is no picture")


def test_a_client_that_goes_away_leaves_no_listener_and_the_job_goes_on(made, tmp_path, method):
    desk = Desk(made[0], tmp_path / "desk")
    with served(desk) as url, client(url) as http:
        ada(http)
        method.gate.clear()
        job = submit(http)
        with client(url) as other, other.stream("GET", f"/v1/jobs/{job['id']}/events") as answer:
            method.begun.wait(10)
            assert answer.status_code == 200
            until(lambda: desk.workshop._followers)
        until(lambda: not desk.workshop._followers)
        method.gate.set()
        assert events(http, job["id"])[-1][1]["state"] == "done"


def until(true, seconds=10):
    ends = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < ends
        time.sleep(0.01)


def test_more_listeners_than_threads_do_not_keep_others_out(http, method):
    ada(http)
    method.gate.clear()
    job = submit(http)
    done = []
    threads = [
        threading.Thread(target=lambda: done.append(events(http, job["id"])[-1][0])) for _ in range(60)
    ]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    assert http.get("/health", timeout=5).status_code == 200
    assert http.get("/v1/jobs", timeout=5).status_code == 200
    method.gate.set()
    for thread in threads:
        thread.join(20)
    assert done == ["ended"] * 60


# ---- what is here


def test_styles_models_health_and_metrics(http):
    ada(http)
    ada(http, "")
    events(http, submit(http, n=2)["id"])
    assert "watercolour" in {one["name"] for one in http.get("/v1/styles").json()}
    names = [one["id"] for one in http.get("/v1/models").json()["data"]]
    assert names[0] == "photomaker"
    assert "photomaker:Ada" in names
    assert names[1].startswith("photomaker:idn_")
    assert http.get("/health").json() == {
        "status": "ok",
        "waiting": 0,
        "drawing": 0,
        "model": "fake, cpu fp32",
    }
    figures = http.get("/metrics").text
    phases = [
        f'photomaker_phase_seconds_count{{phase="{one}"}}'
        for one in ("waiting", "identity", "drawing", "saving")
    ]
    counts = ("photomaker_pictures_total 2.0", "photomaker_likeness_count 2.0", "photomaker_jobs_waiting 0.0")
    for line in (*counts, *phases):
        assert line in figures


def test_a_server_that_stops_says_so(made, tmp_path):
    desk = Desk(made[0], tmp_path / "desk")
    with served(desk) as url, client(url) as http:
        desk.stop()
        answer = http.get("/health")
        assert (answer.status_code, answer.json()["status"]) == (503, "stopping")


def test_a_picture_that_is_deleted_at_this_moment_is_not_there(made, tmp_path):
    desk = Desk(made[0], tmp_path / "desk")
    with served(desk) as url, client(url) as http:
        picture = http.post("/v1/images", files={"image": ("a.png", fakes.png())}).json()
        desk.picture_file("local", picture["id"]).unlink()
        problem(http.get(picture["url"]), 404, "it was just deleted")


def test_the_description_is_whole_and_its_examples_are_good(http):
    told = http.get("/openapi.json").json()
    assert told["openapi"].startswith("3.1")
    routes = {(path, verb) for path, verbs in told["paths"].items() for verb in verbs}
    assert len(routes) == 24
    for path, verb in routes:
        route = told["paths"][path][verb]
        assert route["description"] or route["summary"]
        assert route["tags"]
        good = next(answer for status, answer in route["responses"].items() if status.startswith("2"))
        assert good.get("content") or verb == "delete"
        if verb in ("post", "patch"):
            assert route["requestBody"]["content"]
    example = OrderIn.model_config["json_schema_extra"]["examples"][0]
    assert PlainOrder.of(example).n == 4
    assert OrderIn(**example)
    for name in ("PersonOut", "PictureOut", "JobOut"):
        fields = told["components"]["schemas"][name]["properties"]
        assert all("examples" in one or "$ref" in one or "items" in one for one in fields.values()), name


@pytest.mark.parametrize(
    ("outside", "inside"),
    [(OrderIn, PlainOrder), (LoraIn, PlainLora), (StructureIn, PlainStructure), (StyleIn, PlainStyle)],
)
def test_the_wires_orders_are_those_of_the_desk(outside, inside):
    from dataclasses import MISSING, fields

    own = {one.name: one.default for one in fields(inside)}
    assert list(outside.model_fields) == list(own)
    for name, default in own.items():
        field = outside.model_fields[name]
        assert field.is_required() == (default is MISSING)
        if default is not MISSING:
            assert field.default == (list(default) if isinstance(default, tuple) else default)


# ---- mistakes


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 400, "not a JSON"),
        (b"{", 400, "not a JSON"),
        (b"[1]", 400, "holds a list"),
        (b"\xff\xfe", 400, "not a JSON"),
        (b"[" * 100_000, 400, "not a JSON"),
        (b'{"prompts": ["a woman img"]}', 422, "lacks people"),
        (b'{"people": ["Ada"], "prompts": ["a woman img"], "stepps": 3}', 422, "did you mean steps"),
        (b'{"people": "Ada", "prompts": ["a woman img"]}', 422, "people in the order is 'Ada'"),
        (b'{"people": ["Ada"], "prompts": ["a woman img"], "n": "many"}', 422, "n in the order is 'many'"),
        (b'{"people": ["Ada"], "prompts": ["a woman img"], "n": 0}', 422, "n is 0"),
        (b'{"people": ["Ada"], "prompts": ["a woman img"], "guidance": NaN}', 422, "guidance is nan"),
        (b'{"people": ["Ada"], "prompts": ["the weather"]}', 422, "class word"),
        (b'{"people": ["Eve"], "prompts": ["a woman img"]}', 404, "no person 'Eve'"),
        (b'{"people": ["Ada"], "prompts": ["a woman img"], "n": 65}', 422, "65 pictures"),
        (b'{"people": ["Ada"], "prompts": ["a woman img"], "start": "/etc/passwd"}', 404, "no picture"),
        (
            b'{"people": ["Ada"], "prompts": ["a woman img"], "loras": [{"name": "http://x/y.safetensors"}]}',
            422,
            "this server has no model",
        ),
        (b'{"people": ["/etc/x.safetensors"], "prompts": ["a woman img"]}', 404, "no person"),
    ],
)
def test_an_order_of_the_wrong_shape_is_told_in_one_sentence(http, body, status, words):
    ada(http)
    answer = http.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"})
    problem(answer, status, words)
    assert http.get("/v1/jobs").json() == []


def test_other_shapes_and_routes(http):
    problem(http.post("/v1/identities/mix", json={"first": 1}), 422, "first is 1")
    kind = {"Content-Type": "application/json"}
    problem(http.post("/v1/identities/mix", content=b"{", headers=kind), 422, "the body is not JSON")
    problem(
        http.post("/v1/identities/mix", content=b"{}"), 422, "not a JSON object; send one, with Content-Type"
    )
    problem(http.get("/v1/nothing"), 404, "Not Found")
    problem(http.put("/v1/jobs"), 405, "Method Not Allowed")
    problem(http.get("/v1/jobs", params={"most": 0}), 422, "most is '0'")
    problem(http.post("/v1/identities", json={}), 415, "send multipart/form-data")


def test_photos_that_are_none_and_too_many(start):
    http = start(limits=Limits(photos=5, pixels=10_000))
    problem(
        http.post("/v1/identities", files=[("photos", ("a.txt", b"hello"))]), 422, "a.txt is not a picture"
    )
    problem(http.post("/v1/identities", files=photos(1000)), 400, "Too many files")
    problem(http.post("/v1/identities", files=photos(6)), 422, "6 photos of one person; send at most 5")
    problem(
        http.post("/v1/identities", files=photos(size=(200, 200))),
        422,
        "200 x 200 pixels, more than 0.01 million",
    )
    problem(
        http.post("/v1/identities", files=[("other", ("a.png", fakes.png()))]), 422, "there are no photos"
    )
    problem(http.post("/v1/images", files=photos()), 422, "0 files in the field image")
    assert http.get("/v1/identities").json() == []


@pytest.mark.filterwarnings(
    "ignore:Unclosed file:ResourceWarning"
)  # Starlette leaves that of a cut part to gc
def test_a_form_that_is_broken_or_breaks_off(http):
    kind = {"Content-Type": "multipart/form-data; boundary=xx"}
    whole = b'--xx\r\nContent-Disposition: form-data; name="photos"; filename="a.png"\r\n\r\n' + fakes.png()
    for body in (whole, whole + b"\r\n--x", b"", b"--", b"no form at all", whole[:40]):
        answer = http.post("/v1/identities", content=body, headers=kind)
        assert answer.status_code in (400, 422)
        problem(answer, answer.status_code, "")
    assert http.get("/v1/identities").json() == []
    assert http.post("/v1/identities", content=whole + b"\r\n--xx--\r\n", headers=kind).status_code == 201
    answer = http.post("/v1/identities", content=b"x", headers={"Content-Type": "multipart/form-data"})
    problem(answer, 400, "boundary")
    gc.collect()


def test_an_upload_beyond_the_limit_is_refused_before_it_is_read(start):
    http = start(limits=Limits(upload_bytes=100_000))
    read = []

    def endless():
        yield b'--xx\r\nContent-Disposition: form-data; name="photos"; filename="a.png"\r\n\r\n'
        for _ in range(100_000):  # 10 GB, were they all taken
            read.append(1)
            yield b"x" * 100_000

    kind = {"Content-Type": "multipart/form-data; boundary=xx"}
    with suppress(httpx.WriteError):  # the server closes the door while we push
        problem(http.post("/v1/identities", content=endless(), headers=kind), 413, "more than 0.0954 MB")
    assert len(read) < 500
    with suppress(httpx.WriteError):
        broken = (b"no form" * 10_000 for _ in iter(lambda: read.append(1), 1))
        assert http.post("/v1/identities", content=broken, headers=kind).status_code in (400, 413)
    assert len(read) < 1000
    assert b"413" in raw(
        http, b"POST /v1/identities HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n"
    )
    problem(http.post("/v1/jobs", content=b" " * 2**21), 413, "more than 1 MB")
    assert http.get("/health").status_code == 200


def raw(http, request):
    """The beginning of the answer to a request of which the body never comes."""
    with socket.create_connection((http.base_url.host, http.base_url.port), timeout=10) as connection:
        connection.sendall(request)
        return connection.recv(1000)


def test_500_jobs_at_once_are_taken_or_put_off(start, method):
    http = start(limits=Limits(waiting=40, waiting_each=30))
    ada(http)
    method.gate.clear()
    answers = []

    def ask():
        with client(str(http.base_url)) as own:
            answers.extend(own.post("/v1/jobs", json=asked(steps=1)) for _ in range(50))

    threads = [threading.Thread(target=ask) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    taken = [one.json() for one in answers if one.status_code == 202]
    refused = [one for one in answers if one.status_code == 429]
    assert len(taken) + len(refused) == 500
    assert 30 <= len(taken) <= 34  # and what was being drawn
    for one in refused[:3]:
        problem(one, 429, "of your jobs are waiting")
        assert 1 <= int(one.headers["Retry-After"]) <= 600
    method.gate.set()
    for job in taken:
        assert events(http, job["id"])[-1][1]["state"] == "done"


def test_a_full_disk_is_told(http, monkeypatch):
    import errno

    from photomaker import images

    def full(path, overwrite=True):
        raise OSError(errno.ENOSPC, "No space left on device")

    ada(http)
    monkeypatch.setattr(images, "atomic", full)
    problem(http.post("/v1/images", files={"image": ("a.png", fakes.png())}), 507, "No space left on device")
    end = events(http, submit(http)["id"])[-1][1]
    assert end["state"] == "failed"
    assert "No space left on device" in end["reason"]


def test_what_goes_wrong_inside_shows_no_traceback(http, monkeypatch, caplog):
    monkeypatch.setattr(Desk, "people", lambda self, owner: 1 / 0)
    problem(http.get("/v1/identities"), 500, "internal error; see the server's log")
    assert "ZeroDivisionError" in caplog.text


# ---- who may come in


@pytest.fixture
def tokens(tmp_path):
    file = tmp_path / "tokens"
    file.write_text("# ada's\n" + TOKENS[0] + "\n\n" + TOKENS[1] + "\n")
    return ServerSettings(read_tokens(file), hosts=None)


def test_without_a_token_nothing_is_answered_but_health(start, tokens):
    http = start(tokens)
    for path in (
        "/v1/identities",
        "/v1/jobs",
        "/v1/images",
        "/v1/models",
        "/v1/styles",
        "/metrics",
        "/v1/images/x",
    ):
        for headers in (
            {},
            {"Authorization": "Bearer " + "c" * 32},
            {"Authorization": "Basic YTpi"},
            {"Authorization": "Bearer é".encode()},
        ):
            answer = http.get(path, headers=headers)
            problem(answer, 401, "this server needs a token")
            assert answer.headers["WWW-Authenticate"] == "Bearer"
    problem(http.post("/v1/jobs", json=asked()), 401, "token")
    problem(http.post("/v1/images/generations", json={"prompt": "x"}), 401, "token")
    assert http.get("/health").status_code == 200


def test_each_token_is_a_caller_of_their_own(start, tokens):
    http = start(tokens, token=TOKENS[0])
    other = client(str(http.base_url), TOKENS[1])
    person = ada(http)
    job = submit(http)
    picture = events(http, job["id"])[-2][1]["picture"]
    for verb, path in (
        ("GET", f"/v1/identities/{person['id']}"),
        ("GET", f"/v1/identities/{person['id']}/file"),
        ("GET", f"/v1/identities/{person['id']}/portrait"),
        ("DELETE", f"/v1/identities/{person['id']}"),
        ("GET", f"/v1/jobs/{job['id']}"),
        ("GET", f"/v1/jobs/{job['id']}/events"),
        ("DELETE", f"/v1/jobs/{job['id']}"),
        ("DELETE", f"/v1/jobs/{job['id']}?forget=true"),
        ("GET", picture["url"]),
        ("DELETE", picture["url"]),
    ):
        foreign = other.request(verb, path)
        assert foreign.status_code == 404
        unknown = other.request(verb, path.replace(path.split("/")[3].partition("?")[0][4:], "0" * 32))
        strip = [problem(one, 404, "there is no")["detail"].partition("'")[0] for one in (foreign, unknown)]
        assert strip[0] == strip[1]
    problem(other.post("/v1/jobs", json=asked(people=[person["id"]])), 404, "there is no person")
    assert (
        other.get("/v1/identities").json()
        == other.get("/v1/jobs").json()
        == other.get("/v1/images").json()
        == []
    )
    assert http.get(picture["url"]).status_code == 200
    other.close()


def test_pages_of_other_sites_are_not_answered(http):
    ada(http)
    problem(
        http.get("/v1/identities", headers={"Host": "evil.example"}),
        403,
        "host name 'evil.example' is not accepted",
    )
    problem(
        http.post("/v1/jobs", json=asked(), headers={"Origin": "https://evil.example"}), 403, "evil.example"
    )
    problem(http.post("/v1/jobs", json=asked(), headers={"Origin": "null"}), 403, "null")
    own = str(http.base_url).rstrip("/")
    answer = http.post("/v1/jobs", json=asked(), headers={"Origin": own})
    assert answer.status_code == 202
    assert "access-control-allow-origin" not in answer.headers
    problem(http.options("/v1/jobs", headers={"Origin": "https://evil.example"}), 403, "")
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has no token"),
        ("# nothing\n", "has no token"),
        ("short\n", "shorter than 16"),
        ("with some spaces in it\n", "has spaces"),
        ("x" * 20 + "\n" + "x" * 20, "twice"),
    ],
)
def test_tokens_that_protect_nothing_are_refused(tmp_path, text, words):
    file = tmp_path / "tokens"
    file.write_text(text)
    with pytest.raises(SettingsError, match=words):
        read_tokens(file)


def test_tokens_are_compared_in_constant_time_and_owners_outlive_the_order_of_lines(tmp_path, monkeypatch):
    import secrets

    compared = []
    real = secrets.compare_digest
    monkeypatch.setattr(secrets, "compare_digest", lambda a, b: compared.append(a) or real(a, b))
    file = tmp_path / "tokens"
    file.write_text("\n".join(TOKENS))
    first = read_tokens(file)
    file.write_text("\n".join(reversed(TOKENS)))
    second = read_tokens(file)
    for token in TOKENS:
        compared.clear()
        assert first.owner(token) == second.owner(token)
        assert len(compared) == 4  # all are looked at, whichever fits
        assert token not in first.owner(token)
    with pytest.raises(SettingsError, match="cannot read the tokens"):
        read_tokens(tmp_path / "none")


def test_an_app_is_made_without_a_socket(made, tmp_path):
    from fastapi.testclient import TestClient

    with TestClient(create_app(Desk(made[0], tmp_path / "desk")), base_url="http://localhost") as http:
        assert http.get("/health").json()["status"] == "ok"
