"""`--speed`: spelt out in the order, told where it cannot be, and the same in every door's order."""

from dataclasses import replace
from pathlib import Path

import pytest
from tests.studio.fakes import FakeDetector, FakeMethod, FakeRecogniser, save

from photomaker.apps.page.wishes import Wish, order_of
from photomaker.errors import SettingsError
from photomaker.methods.photomaker import PhotoMaker
from photomaker.methods.textual_inversion import TextualInversion
from photomaker.speeds import PRESETS, STUDENTS, Speed
from photomaker.studio.engine import Backends, Engine, told_of
from photomaker.studio.opening import Profile
from photomaker.studio.orders.batch import read_orders
from photomaker.studio.orders.order import Order, Someone
from photomaker.studio.orders.plain import PlainOrder, full_order
from photomaker.studio.orders.speed import sped
from photomaker.studio.pictures.saving import describe
from photomaker.types import NO_SHORTCUTS, Extras, Lora, Request, Sample, Sampling, Shortcuts

pytestmark = pytest.mark.usefixtures("no_coach")

PROMPT = "a photo of a woman img in the snow"
SDXL, BUNDLED = Profile(PhotoMaker), Profile(PhotoMaker, bundled=True)


def order(speed, **more):
    return Order((Someone("ada.safetensors", "ada"),), (PROMPT,), speed=speed, **more)


def test_exact_is_the_order_as_it_was():
    given = order("exact", sampling=Sampling(steps=33, scheduler="heun"))
    assert sped(given, SDXL) == (Speed(), given, [])


@pytest.mark.parametrize("profile", [SDXL, BUNDLED])
def test_fast_is_spelt_out_once(profile):
    speed, done, notes = sped(order("fast"), profile)
    assert (speed, notes) == (Speed("fast"), [])
    assert done.sampling == PRESETS["fast"].applied(Sampling())
    assert sped(done, profile)[1] == done


def test_auto_goes_by_what_was_measured():
    assert sped(order("auto"), BUNDLED)[0] == Speed("fast")
    speed, done, notes = sped(order("auto"), SDXL)
    assert (speed, done.sampling) == (Speed(), Sampling())
    assert "nothing is measured for this base" in notes[0]


@pytest.mark.parametrize("name", STUDENTS)
def test_turbo_is_a_lora_with_its_solver(name):
    style = Lora("style.safetensors", 0.7)
    speed, done, notes = sped(order(f"turbo:{name}", extras=Extras(loras=(style,))), SDXL)
    assert speed == Speed("turbo", name)
    assert notes == []
    assert done.extras.loras == (style, Lora(STUDENTS[name].file))
    assert (done.sampling.steps, done.sampling.guidance) == (STUDENTS[name].steps, 1.0)
    assert sped(done, SDXL)[1] == done


def test_turbo_by_a_file():
    assert sped(order("turbo:lcm=/models/x.safetensors"), SDXL)[1].extras.loras == (
        Lora("/models/x.safetensors"),
    )
    assert str(sped(order("turbo"), SDXL)[0]) == "turbo:lightning"


def test_turbo_says_what_it_cannot():
    assert "the negative prompt has no effect" in sped(order("turbo", negative="hats"), SDXL)[2][0]
    with pytest.raises(SettingsError, match="textual_inversion takes none; use fast"):
        sped(order("turbo"), Profile(TextualInversion))
    with pytest.raises(SettingsError, match="for SDXL, not for the bundled model"):
        sped(order("turbo:lcm"), BUNDLED)


def test_turbo_of_the_bundled_model_is_a_better_solver_in_a_few_steps():
    speed, done, _ = sped(order("turbo"), BUNDLED)
    assert (speed, done.extras.loras) == (Speed("turbo"), ())
    assert (done.sampling.steps, done.sampling.scheduler) == (5, "dpm++ 2m sde")
    assert sped(done, BUNDLED)[1] == done


# ---- the doors


def test_an_engine_hands_it_on(tmp_path):
    (tmp_path / "ada").mkdir()
    save(tmp_path / "ada" / "a.png")
    engine = Engine(FakeMethod, Backends(FakeDetector(), FakeRecogniser()), profile=Profile(bundled=True))
    sample = engine.generate(tmp_path / "ada", PROMPT, speed="fast")[0]
    assert sample.notes["speed"] == "fast"
    wanted = PRESETS["fast"].applied(Sampling())
    assert sample.request.sampling.steps == wanted.steps
    assert sample.request.sampling.shortcuts == wanted.shortcuts
    plan = engine.plan(Order((Someone(tmp_path / "ada", "ada"),), (PROMPT,)))
    assert "speed" not in told_of(plan, 0)


def test_a_pictures_file_says_what_was_left_out():
    sampling = Sampling(shortcuts=Shortcuts(2, 0.5, 1, 0.6))
    told = describe(Sample(None, Request(PROMPT, sampling)))
    assert told["shortcuts"] == "deep every 2 from 0.5, outer 1, words to 0.6"
    assert "shortcuts" not in describe(Sample(None, Request(PROMPT)))


def test_a_file_of_orders_may_have_several(tmp_path):
    file = tmp_path / "orders.yaml"
    file.write_text(
        f"people: {{ada: {save(tmp_path / 'a.png')}}}\norders: [{{prompts: '{PROMPT}', speed: [exact, fast]}}]\n"
    )
    rows = read_orders(file)
    assert [row.order.speed for row in rows] == [Speed(), Speed("fast")]
    assert rows[1].label.endswith("speed fast")


class _Shelf:
    def someone(self, name):
        return f"{name}.safetensors", name

    def model(self, name):
        return str(Path("/list") / name)

    def image(self, name):
        raise AssertionError(name)


def test_a_plain_order_has_it_and_names_weights_of_the_list_alone():
    plain = PlainOrder(("ada",), (PROMPT,), speed="fast")
    assert full_order(plain, _Shelf()).speed == Speed("fast")
    own = full_order(replace(plain, speed="turbo:lcm=mine"), _Shelf())
    assert own.speed == Speed("turbo", "lcm", "/list/mine")
    assert PlainOrder.of(plain.as_json()) == plain


def test_the_page_has_a_box_for_it():
    exact, fast = (order_of(Wish("ada", PROMPT, fast=fast), 0.1) for fast in (False, True))
    assert (exact.speed, fast.speed) == ("exact", "fast")
    assert fast.steps == exact.steps


def test_nothing_is_left_out_unless_it_is_asked_for():
    assert Sampling().shortcuts == NO_SHORTCUTS
    with pytest.raises(SettingsError, match="deep_every is 0"):
        Shortcuts(0)
    with pytest.raises(SettingsError, match="words_after is 2"):
        Shortcuts(words_after=2)
