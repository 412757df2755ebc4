"""Replicas on Ray draw what one engine draws, and outlive a death among them."""

import os
import signal
import sys
import threading
from pathlib import Path

import pytest

from photomaker import weights
from photomaker.errors import Cancelled, SettingsError
from photomaker.studio.desk.replicas import Replicas
from photomaker.studio.desk.workers import DrawerLost
from photomaker.studio.events import Cancel, Denoised
from photomaker.types import Request, Sampling

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def engine():
    if not (weights.SMALL / "base").is_dir():
        pytest.skip("no bundled weights")
    from photomaker import Engine

    return Engine.open()


@pytest.fixture(scope="module")
def pair():
    pytest.importorskip("ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        patch.setenv("PYTHONPATH", f"{ROOT / 'src'}:{ROOT}")
        with Replicas(2, {"image_encoder": False}, gpus=0) as both:
            yield both


@pytest.fixture(scope="module")
def ada(engine):
    return engine.identity(ROOT / "examples" / "ada")


def requests(count, steps=4):
    return [
        Request("a photo of a woman img in the snow", Sampling(seed=k, steps=steps)) for k in range(count)
    ]


def test_a_replica_draws_what_the_engine_draws_and_tells_of_steps(engine, pair, ada):
    events = []
    drawn = pair.drawers[1].draw(ada, requests(2, 6), on_event=events.append)
    own = engine.draw(ada, requests(2, 6))
    assert [one.image.tobytes() for one in drawn] == [one.image.tobytes() for one in own]
    assert [one.likeness for one in drawn] == pytest.approx([one.likeness for one in own])
    steps = [one for one in events if isinstance(one, Denoised)]
    assert steps and len(steps[0].preview()) == 2


def test_a_replica_that_is_killed_is_told_and_another_takes_its_place(engine, pair, ada):
    first, second = pair.processes()
    killed = []

    def end_it(event):
        if isinstance(event, Denoised) and not killed:
            killed.append(first)
            os.kill(first, signal.SIGKILL)

    with pytest.raises(DrawerLost, match="replica 1 died"):
        pair.drawers[0].draw(ada, requests(4, 50), on_event=end_it)
    assert killed == [first]
    now = pair.processes()
    assert now[1] == second and now[0] != first
    (drawn,) = pair.drawers[0].draw(ada, requests(1))
    assert drawn.image.tobytes() == engine.draw(ada, requests(1))[0].image.tobytes()


def test_a_cancel_reaches_a_replica(pair, ada):
    cancel = Cancel()
    threading.Timer(0.5, cancel.cancel).start()
    with pytest.raises(Cancelled):
        pair.drawers[1].draw(ada, requests(8, 1000), cancel=cancel)


def test_a_mistake_comes_back_as_it_was(pair, ada):
    with pytest.raises(SettingsError, match="a request"):
        pair.drawers[1].draw(ada, ["no request"])


def test_without_ray_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SettingsError, match=r"pip install 'photomaker\[scale\]'"):
        Replicas(2, {})


def test_numbers_and_addresses_that_cannot_be_are_told_at_once():
    pytest.importorskip("ray")
    with pytest.raises(SettingsError, match="replicas is 0"):
        Replicas(0, {})
    with pytest.raises(SettingsError, match=r"no Ray cluster at '127\.0\.0\.1:9' .*; check --cluster"):
        Replicas(1, {}, "127.0.0.1:9")
