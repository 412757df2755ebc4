"""Any number of threads at one engine: each gets what it would get alone, in turn, and may be stopped."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.studio.fakes import FakeDetector, FakeMethod, FakeRecogniser, picture

from photomaker import weights
from photomaker.errors import Cancelled, SettingsError
from photomaker.studio.engine import Backends, Engine
from photomaker.studio.events import Cancel, Denoised, Drawn, Queued
from photomaker.studio.turns import Turns
from photomaker.types import Sampling

pytestmark = pytest.mark.usefixtures("no_coach")

PROMPT = "a photo of a woman img in the snow"
THREADS = 8


class SlowMethod(FakeMethod):
    """Draws one batch at a time, or says that two drew at once; takes a moment for each."""

    def __init__(self, seconds=0.02):
        super().__init__()
        self.busy, self.seconds, self.order = threading.Lock(), seconds, []

    def generate(self, identity, requests, *, watch=None):
        assert self.busy.acquire(blocking=False), "two batches at once"
        try:
            time.sleep(self.seconds)
            self.order.append(requests[0].sampling.seed // 1000)
            return super().generate(identity, requests)
        finally:
            self.busy.release()


@pytest.fixture
def engine():
    method = SlowMethod()
    return Engine(lambda: method, Backends(FakeDetector(), FakeRecogniser()))


def test_batches_are_drawn_one_at_a_time_and_a_short_call_waits_for_a_batch_not_for_a_call(engine):
    identity = engine.identity([picture()])
    begun = threading.Event()

    def long():
        begun_once = lambda done, total: begun.set() if done else None  # noqa: E731
        return engine.generate(identity, PROMPT, n=40, batch=2, progress=begun_once)

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(long)
        assert begun.wait(10)
        engine.generate(identity, PROMPT, sampling=Sampling(seed=1000))
        place = engine.method.order.index(1)
        assert len(waiting.result()) == 40
    assert place < len(engine.method.order) - 5
    assert engine.method.order.count(0) == 20


def test_turns_are_given_in_the_order_of_asking():
    turns, order, threads = Turns(), [], []

    def ask(name):
        with turns.turn():
            order.append(name)

    with turns.turn():
        for name in range(6):
            threads.append(threading.Thread(target=ask, args=(name,)))
            threads[-1].start()
            while len(turns._queue) < name + 2:
                time.sleep(0.001)
    for thread in threads:
        thread.join()
    assert order == list(range(6))


def test_who_waits_is_told_the_place_and_can_leave():
    turns, told, cancel = Turns(), [], Cancel()
    left = threading.Event()

    def wait():
        with pytest.raises(Cancelled), turns.turn(cancel, told.append):
            pytest.fail("it was not this one's turn")
        left.set()

    with turns.turn():
        thread = threading.Thread(target=wait)
        thread.start()
        while not told:
            time.sleep(0.001)
        cancel.cancel()
        assert left.wait(2)
    thread.join()
    assert told == [1]
    with turns.turn():  # who left is not waited for
        pass


def test_asking_from_inside_a_callback_is_refused_instead_of_waiting_for_ever(engine):
    turns = Turns()
    with (
        turns.turn(),
        pytest.raises(SettingsError, match="from inside one of its own callbacks"),
        turns.turn(),
    ):
        pass


def test_an_error_hands_the_turn_on():
    turns = Turns()
    with pytest.raises(ValueError, match="mine"), turns.turn():
        raise ValueError("mine")
    with turns.turn():
        pass


def test_the_model_is_loaded_once_by_whoever_comes_first():
    loaded = []

    def load():
        time.sleep(0.05)
        loaded.append(1)
        return FakeMethod()

    engine = Engine(load, Backends(FakeDetector(), FakeRecogniser()))
    with ThreadPoolExecutor(THREADS) as pool:
        list(
            pool.map(
                lambda seed: engine.generate(picture(), PROMPT, sampling=Sampling(seed=seed)), range(THREADS)
            )
        )
    assert loaded == [1]


needs_weights = pytest.mark.skipif(not (weights.SMALL / "base").is_dir(), reason="no bundled weights")


@pytest.fixture(scope="module")
def bundled():
    engine = Engine.open(device="cpu")
    return engine, engine.identity(weights.ASSETS / "people" / "ada")


CALLS = [
    {"sampling": Sampling(steps=3, seed=seed, **more), "n": n, "style": style}
    for seed, n, style, more in (
        (0, 1, "none", {}),
        (1, 2, "sketch", {"scheduler": "euler"}),
        (2, 1, "none", {"guidance": 1.0}),
        (3, 3, "none", {"guidance_stop": 0.5}),
        (4, 1, "none", {"scheduler": "dpm++ 2m karras"}),
        (5, 1, "watercolour", {"merge": 0.5}),
        (6, 1, "none", {"width": 64, "height": 128}),
        (7, 2, "none", {"scheduler": "heun"}),
    )
]


@needs_weights
@pytest.mark.slow
def test_eight_threads_get_bit_for_bit_what_one_call_after_another_gets(bundled):
    engine, ada = bundled

    def draw(call):
        return [
            (one.image.tobytes(), one.likeness)
            for one in engine.generate(ada, PROMPT, on_event=len_of, **call)
        ]

    alone = [draw(call) for call in CALLS]
    with ThreadPoolExecutor(THREADS) as pool:
        assert list(pool.map(draw, CALLS)) == alone


def len_of(_event):
    """A listener that only listens."""


@needs_weights
def test_a_cancelled_call_stops_within_a_step_and_the_others_do_not_notice(bundled):
    engine, ada = bundled
    alone = engine.generate(ada, PROMPT, sampling=Sampling(steps=4, seed=3))[0].image.tobytes()
    cancel, steps = Cancel(), []

    def stop(event):
        if isinstance(event, Denoised):
            steps.append(event.step)
            if event.step == 2:
                cancel.cancel()

    def cancelled():
        with pytest.raises(Cancelled, match="cancelled; finished"):
            engine.generate(ada, PROMPT, n=3, sampling=Sampling(steps=50), cancel=cancel, on_event=stop)

    with ThreadPoolExecutor(4) as pool:
        stopped = pool.submit(cancelled)
        others = [pool.submit(engine.generate, ada, PROMPT, 1, Sampling(steps=4, seed=3)) for _ in range(3)]
        stopped.result()
        assert [one.result()[0].image.tobytes() for one in others] == [alone] * 3
    assert steps == [1, 2]


@needs_weights
def test_a_call_tells_of_steps_with_previews_and_of_pictures(bundled):
    engine, ada = bundled
    events, previews = [], []

    def told(event):
        events.append(event)
        if isinstance(event, Denoised):
            previews.append(event.preview())

    engine.generate(ada, PROMPT, n=3, batch=2, sampling=Sampling(steps=2), on_event=told)
    steps = [(one.step, one.steps, one.done, one.total) for one in events if isinstance(one, Denoised)]
    assert steps == [(1, 2, 0, 3), (2, 2, 0, 3), (1, 2, 2, 3), (2, 2, 2, 3)]
    assert [len(several) for several in previews] == [2, 2, 1, 1]
    assert previews[0][0].size == (64, 64)
    assert [(one.done, one.total) for one in events if isinstance(one, Drawn)] == [(1, 3), (2, 3), (3, 3)]
    assert not [one for one in events if isinstance(one, Queued)]
