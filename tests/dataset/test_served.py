"""Every way in which planted photos are served: what must arrive does, and the rest is dropped for its reason."""

import os
import socket

import pytest
from tests.dataset import fakes

from photomaker.dataset.base import Dropped, Photo
from photomaker.dataset.download import Fetch
from photomaker.dataset.gather import Gather
from photomaker.errors import SettingsError
from photomaker.synthetic.served import LARGE, WAYS, address, serve

JPEG = fakes.encoded(fakes.photo(1), "JPEG")
QUICK = Fetch(per_host=16, timeout=0.5, connect_timeout=0.5, retries=2, backoff=0.01)


@pytest.fixture
def port():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


@pytest.fixture
def photos(tmp_path):
    for way in WAYS:
        (tmp_path / way).mkdir()
        (tmp_path / way / "0.jpg").write_bytes(JPEG)
    return tmp_path


def gathered(places, fetch=QUICK):
    rows = [
        {"key": f"{n:08d}", "person": "ada", "shard": 0, "source": place, "place": place, "remote": True,
         "offset": None, "size": None, "twice": False}
        for n, place in enumerate(places)
    ]  # fmt: skip
    step = Gather(short_side=32, most_bytes=LARGE - 1, fetch=fetch)
    return list(step.open()(Photo(row) for row in rows))


def test_every_way_has_the_end_that_it_states(photos, port, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "elsewhere")
    with serve(photos, port):
        ways = [*(way for way in WAYS if way != "slow"), "slow"]
        found = gathered([address(way, f"{way}/0.jpg", port) for way in ways[:-1]])
        found += gathered([address("slow", "slow/0.jpg", port)], Fetch(timeout=5))
    assert os.environ["no_proxy"] == "elsewhere"
    ends = {way: one.reason if isinstance(one, Dropped) else "" for way, one in zip(ways, found, strict=True)}
    assert ends == {way: stated.reason for way, stated in WAYS.items()}
    assert all(one.files["image"] == JPEG for one in found if isinstance(one, Photo))
    assert sum(way.share for way in WAYS.values()) == pytest.approx(1)


def test_only_the_photos_are_served(photos, port):
    (photos.parent / "secret.jpg").write_bytes(JPEG)
    with serve(photos, port):
        outside = gathered([f"http://127.0.0.1:{port}/plain/{name}" for name in ("../secret.jpg", "x/0.jpg")])
    assert [one.reason for one in outside] == ["http 404"] * 2
    after = gathered([address("plain", "plain/0.jpg", port)])
    assert [one.reason for one in after] == ["no connection"]


@pytest.mark.parametrize("wrong", [-1, 70_000])
def test_a_port_that_cannot_be_had(photos, port, wrong):
    with socket.create_server(("127.0.0.1", port)):
        for bad in (port, wrong):
            with pytest.raises(SettingsError, match=f"port {bad} .* give another port"), serve(photos, bad):
                pass
