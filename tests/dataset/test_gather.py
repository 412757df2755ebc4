"""Downloads from a server on loopback that does everything wrong, and files that do."""

from __future__ import annotations

import hashlib
import io
import struct
import threading
import time
import zlib
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image
from tests.dataset import fakes
from tests.profiles import P3, display

from photomaker.dataset.base import Dropped, Photo
from photomaker.dataset.dedupe import Dedupe
from photomaker.dataset.download import Fetch
from photomaker.dataset.gather import Gather, look
from photomaker.dataset.segment import encoded
from photomaker.errors import SettingsError
from photomaker.images import read_photo

JPEG = fakes.encoded(fakes.photo(1), "JPEG")


ROBOTS = b"User-agent: *\nDisallow: /private/\n\nUser-agent: otherbot\nDisallow: /\n"


class Server(BaseHTTPRequestHandler):
    """Answers by the path."""

    protocol_version = "HTTP/1.1"
    at_once = most_at_once = 0
    lock = threading.Lock()

    def log_message(self, *_):
        pass

    def do_GET(self):
        cls = type(self)
        with cls.lock:
            cls.seen[self.path] += 1
            cls.at_once += 1
            cls.most_at_once = max(cls.most_at_once, cls.at_once)
            cls.agents.add(self.headers["User-Agent"])
        try:
            self.answer(self.path.strip("/").partition("/")[0].partition(".")[0])
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            with cls.lock:
                cls.at_once -= 1

    def send(self, body=JPEG, status=200, kind="image/jpeg", **headers):
        self.send_response(status)
        if kind:
            self.send_header("Content-Type", kind)
        for name, value in {"Content_Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def answer(self, name):
        ANSWERS.get(name, Server.send)(self)

    @property
    def tries(self):
        return self.seen[self.path]

    def slow(self, seconds):
        time.sleep(seconds)
        self.send()

    def limited(self):
        self.times.append(time.monotonic())
        self.send(b"", 429, Retry_After="1") if self.tries < 2 else self.send()

    def hops(self):
        left = int(self.path.rpartition("-")[2])
        self.send(b"", 302, Location=f"/hops/-{left - 1}") if left else self.send()

    def endless(self):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for _ in range(12):
            self.wfile.write(b"2000\r\n" + b"x" * 8192 + b"\r\n")
        self.wfile.write(b"0\r\n\r\n")

    def broken(self):
        self.send(Content_Length=str(len(JPEG) + 50))
        self.close_connection = True


ANSWERS = {
    "robots": lambda one: one.send(ROBOTS, kind="text/plain"),
    "slow": lambda one: one.slow(1.2),
    "busy": lambda one: one.slow(0.05),
    "fails": lambda one: one.send(b"", 500),
    "flaky": lambda one: one.send(b"", 503) if one.tries < 3 else one.send(),
    "limited": Server.limited,
    "forbids": lambda one: one.send(b"", 429, Retry_After="7200"),
    "missing": lambda one: one.send(b"gone", 404),
    "page": lambda one: one.send(b"<html>", kind="text/html; charset=utf-8"),
    "liar": lambda one: one.send(b"<html>"),
    "untyped": lambda one: one.send(kind=""),
    "large": lambda one: one.send(b"x" * 60_000),
    "endless": Server.endless,
    "broken": Server.broken,
    "cut": lambda one: one.send(JPEG[:600]),
    "moved": lambda one: one.send(b"", 302, Location="/good.jpg"),
    "loop": lambda one: one.send(b"", 302, Location=one.path),
    "hops": Server.hops,
    "elsewhere": lambda one: one.send(b"", 302, Location="file:///etc/passwd"),
    "hidden": lambda one: one.send(b"", 302, Location="/private/1.jpg"),
    "noai": lambda one: one.send(X_Robots_Tag="noimageai, nofollow"),
    "otherbot": lambda one: one.send(X_Robots_Tag="otherbot: noai, noindex"),
    "ours": lambda one: one.send(X_Robots_Tag="photomaker: noai"),
    "reserved": lambda one: one.send(tdm_reservation="1"),
    "gif": lambda one: one.send(fakes.encoded(fakes.photo(2), "GIF"), kind="image/gif"),
    "small": lambda one: one.send(fakes.encoded(fakes.photo(3, (80, 31)), "PNG"), kind="image/png"),
}


@pytest.fixture
def server():
    class Fresh(Server):
        pass

    Fresh.seen, Fresh.agents, Fresh.times = Counter(), set(), []
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Fresh)
    httpd.daemon_threads = True
    httpd.handle_error = lambda *_: None  # a client that leaves is no fault
    thread = threading.Thread(target=httpd.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    Fresh.url = f"http://127.0.0.1:{httpd.server_port}"
    yield Fresh
    httpd.shutdown()
    httpd.server_close()
    thread.join()


QUICK = Fetch(timeout=0.5, connect_timeout=0.5, retries=2, backoff=0.01, patience=5)


def gather(places, fetch=QUICK, **settings):
    """Outcome by place."""
    rows = [
        {"key": f"{n:08d}", "person": "ada", "shard": 0, "source": place, "place": place, "remote": True,
         "offset": None, "size": None, "twice": False}
        for n, place in enumerate(places)
    ]  # fmt: skip
    step = Gather(**{"short_side": 32, "most_bytes": 50_000, "fetch": fetch, **settings})
    found = list(step.open()(Photo(row) for row in rows))
    assert [one.row["key"] for one in found] == [row["key"] for row in rows]
    return dict(zip(places, found, strict=True))


def reasons(found):
    return {
        place.rpartition("/")[2]: one.reason if isinstance(one, Dropped) else ""
        for place, one in found.items()
    }


def test_every_fault_of_a_server_has_its_reason(server):
    expected = {
        "good.jpg": "", "slow": "timeout", "fails": "http 500", "flaky": "", "limited": "", "missing": "http 404",
        "forbids": "http 429", "page": "not an image", "liar": "not an image", "untyped": "", "large": "too large",
        "endless": "too large", "broken": "broken off", "cut": "corrupt", "moved": "",
        "loop": "too many redirects", "elsewhere": "bad address", "hidden": "robots", "noai": "no-AI header",
        "otherbot": "", "ours": "no-AI header", "reserved": "no-AI header", "gif": "", "small": "short side",
    }  # fmt: skip
    begun = time.monotonic()
    found = gather([f"{server.url}/{name}" for name in expected])
    assert reasons(found) == expected
    assert time.monotonic() - begun < 6
    assert server.seen["/flaky"] == 3
    assert server.seen["/fails"] == 3
    assert server.seen["/missing"] == server.seen["/forbids"] == 1
    assert server.times[1] - server.times[0] >= 1
    assert server.seen["/robots.txt"] == 1
    assert "/private/1.jpg" not in server.seen
    assert server.agents == {"photomaker"}
    assert found[f"{server.url}/small"].image
    assert found[f"{server.url}/small"].detail == "80 x 31 pixels"


def test_five_redirects_are_followed_and_no_sixth(server):
    found = gather([f"{server.url}/hops/-{hops}" for hops in (5, 6)])
    assert reasons(found) == {"-5": "", "-6": "too many redirects"}
    assert found[f"{server.url}/hops/-6"].detail == "more than 5"
    found = gather([f"{server.url}/loop"])
    assert server.seen["/loop"] == 6


@pytest.mark.parametrize(("hops", "reason"), [(5, "missing"), (6, "too many redirects")])
def test_robots_txt_may_move_as_often(server, monkeypatch, hops, reason):
    rules = {"robots": lambda one: one.send(b"", 302, Location=f"/hops/-{hops - 1}")}
    monkeypatch.setattr(server, "answer", lambda one, name: (ANSWERS | rules).get(name, Server.send)(one))
    found = gather([f"{server.url}/missing"])
    assert reasons(found)["missing"].startswith("http 404" if reason == "missing" else reason)


def test_what_is_no_address_is_not_read(tmp_path):
    (tmp_path / "a.jpg").write_bytes(JPEG)
    bad = [
        "ftp://127.0.0.1/a",
        str(tmp_path / "a.jpg"),
        f"file://{tmp_path}/a.jpg",
        "http://",
        "",
        "http://[1/a",
    ]
    assert {one.reason for one in gather(bad).values()} == {"bad address"}


def test_nobody_answers():
    found = gather(["http://127.0.0.1:9/a.jpg", "http://127.0.0.1:9/b.jpg"])
    assert [one.reason for one in found.values()] == ["no connection"] * 2


def test_robots_can_be_left_aside(server):
    names = ["private/1.jpg", "noai", "hidden"]
    found = gather([f"{server.url}/{name}" for name in names], fetch=Fetch(robots=False))
    assert not any(isinstance(one, Dropped) for one in found.values())
    assert not server.seen["/robots.txt"]


def test_a_name_that_robots_refuses(server):
    found = gather([f"{server.url}/good.jpg"], fetch=Fetch(agent="otherbot"))
    assert reasons(found) == {"good.jpg": "robots"}
    assert not server.seen["/good.jpg"]


@pytest.mark.parametrize("limits", [{"per_host": 2}, {"concurrency": 3}])
def test_the_limits_hold(server, limits):
    fetch = Fetch(**{"concurrency": 16, "per_host": 16, "robots": False, **limits})
    found = gather([f"{server.url}/busy/{n}" for n in range(12)], fetch=fetch)
    assert not any(isinstance(one, Dropped) for one in found.values())
    assert server.most_at_once == next(iter(limits.values()))


def test_a_proxy_of_the_environment_is_used(server, monkeypatch):
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    found = gather(["http://nowhere.invalid/a.jpg", f"{server.url}/good.jpg"], fetch=Fetch(robots=False))
    assert not any(isinstance(one, Dropped) for one in found.values())
    assert set(server.seen) == {"http://nowhere.invalid/a.jpg", "/good.jpg"}


def test_workers_share_the_limits():
    fetch = Fetch(concurrency=30, per_host=4)
    assert fetch.most_workers(8) == 4
    assert fetch.shared(4) == Fetch(concurrency=7, per_host=1)


def test_bytes_are_kept_and_other_formats_become_png(server):
    found = gather([f"{server.url}/good.jpg", f"{server.url}/gif"])
    good, gif = found.values()
    assert good.files["image"] == JPEG
    assert good.row["sha256"] == hashlib.sha256(JPEG).hexdigest()
    assert Image.open(io.BytesIO(gif.files["image"])).format == "PNG"
    assert (good.row["width"], good.row["height"]) == (96, 80)


def from_disk(path, **settings):
    row = {"key": "0", "person": "ada", "shard": 0, "source": path.name, "place": str(path), "remote": False,
           "offset": None, "size": None, "twice": False}  # fmt: skip
    (found,) = Gather(short_side=32, **settings).open()([Photo(row)])
    return found


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.jpg", JPEG[:700], "corrupt"),
        ("b.jpg", b"", "not an image"),
        ("c.svg", b"<svg/>", "not an image"),
        ("d.png", fakes.encoded(fakes.photo(1, (31, 90))), "short side"),
        ("e.jpg", JPEG * 20, "too large"),
    ],
)
def test_a_bad_file_has_its_reason(tmp_path, name, data, reason):
    (tmp_path / name).write_bytes(data)
    assert from_disk(tmp_path / name, most_bytes=20_000).reason == reason


def test_a_missing_file(tmp_path):
    assert from_disk(tmp_path / "none.jpg").reason == "unreadable"


def test_a_bomb_is_not_decoded(tmp_path):
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    data = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    assert from_disk(tmp_path / "bomb.png").reason == "too many pixels"


def test_a_photo_taken_on_its_side_counts_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    fakes.photo(1).save(tmp_path / "a.jpg", exif=exif)
    found = from_disk(tmp_path / "a.jpg")
    assert (found.row["width"], found.row["height"]) == (80, 96)
    assert found.image().size == (80, 96)


def test_a_photo_of_another_colour_profile_is_read_as_srgb(tmp_path):
    """Kept as it is; whoever decodes it gets sRGB, and what is cut out of it holds sRGB and no profile."""
    picture = Image.new("RGB", (96, 80), (230, 60, 50))
    picture.save(tmp_path / "a.png", icc_profile=display(P3))
    found = from_disk(tmp_path / "a.png")
    assert found.image().getpixel((40, 40)) == pytest.approx((250, 31, 34), abs=1)
    again = read_photo(encoded(found.image(), "png"), "again").image
    assert again.getpixel((40, 40)) == found.image().getpixel((40, 40))


def test_a_look_survives_what_files_go_through():
    picture = fakes.photo(5, (640, 480))
    smaller = Image.open(io.BytesIO(fakes.encoded(picture.resize((400, 300)), "JPEG", quality=50)))
    brighter = picture.point(lambda value: min(255, int(value * 1.1)))
    assert (look(picture) ^ look(smaller)).bit_count() <= 2
    assert (look(picture) ^ look(brighter)).bit_count() <= 4
    assert min((look(picture) ^ look(fakes.photo(seed))).bit_count() for seed in range(6, 40)) > 10


def row(key, sha="", seen=0, side=100):
    return {
        "key": key,
        "person": "ada",
        "sha256": sha or key,
        "look": f"{seen:016x}",
        "width": side,
        "height": side,
    }


def told(rows, distance=4):
    found = Dedupe(distance=distance).open()(rows)
    return [
        (one.row["key"], one.reason, one.detail) if isinstance(one, Dropped) else one["key"] for one in found
    ]


def test_of_equal_files_the_first_stays_and_of_alike_ones_the_largest():
    rows = [row("a", "x", 0b0), row("b", "x", 0b0), row("c", seen=0b1111, side=200), row("d", seen=0xFF00)]
    assert told(rows) == [
        ("a", "near duplicate", "of c, 4 bits differ"), ("b", "exact duplicate", "of a"), "c", "d",
    ]  # fmt: skip
    assert told(rows, 3) == ["a", ("b", "exact duplicate", "of a"), "c", "d"]
    assert told(rows, -1)[0] == "a"


def test_all_64_bits_count():
    looks = np.random.default_rng(0).integers(0, 2**64, 40, dtype=np.uint64)
    rows = [row(f"{n:02d}", seen=int(one)) for n, one in enumerate(looks)]
    assert all(isinstance(one, str) for one in told(rows, 8))
    assert len([one for one in told(rows, 64) if isinstance(one, str)]) == 1


@pytest.mark.parametrize(
    "make",
    [
        lambda: Fetch(concurrency=0), lambda: Fetch(timeout=0), lambda: Fetch(retries=-1), lambda: Gather(short_side=1),
        lambda: Gather(most_bytes=0), lambda: Dedupe(distance=65),
    ],
)  # fmt: skip
def test_settings_out_of_range(make):
    with pytest.raises(SettingsError, match="give"):
        make()
