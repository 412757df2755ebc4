"""Presets: what they are called, and what they do to a sampling."""

import re

import pytest

from photomaker.errors import SettingsError
from photomaker.speeds import PRESETS, STUDENTS, WAYS, Speed, Way
from photomaker.types import Sampling, Shortcuts


def test_exact_changes_nothing():
    sampling = Sampling(steps=33, guidance=4.0, scheduler="heun", guidance_stop=0.7)
    assert PRESETS["exact"].applied(sampling) == sampling


def test_a_way_is_a_share_of_the_steps_asked_for():
    way = Way(0.5, "unipc", guidance_stop=0.6, shortcuts=Shortcuts(2))
    assert way.applied(Sampling(steps=30, merge=0.2)) == Sampling(
        steps=15, merge=0.2, scheduler="unipc", guidance_stop=0.6, shortcuts=Shortcuts(2)
    )
    assert way.applied(Sampling(steps=1)).steps == 1


def test_what_was_asked_for_stays():
    way = Way(0.5, "unipc", guidance_stop=0.6)
    own = way.applied(Sampling(steps=20, scheduler="heun"))
    # fewer steps are right only with the solver that makes up for them
    assert (own.scheduler, own.steps) == ("heun", 20)
    interval = way.applied(Sampling(guidance_start=0.1, guidance_stop=0.9))
    assert (interval.guidance_start, interval.guidance_stop) == (0.1, 0.9)


@pytest.mark.parametrize(
    "given", ["exact", "fast", "turbo", "auto", "turbo:lcm", "turbo:lcm=/models/lcm.safetensors"]
)
def test_a_speed_is_written_as_it_is_read(given):
    assert str(Speed.of(given)) == given
    assert Speed.of(Speed.of(given)) == Speed.of(given)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("fats", "did you mean 'fast'"),
        ("", "choose exact, fast, turbo, auto"),
        (3, "speed is 3"),
        ("fast:lcm", "only turbo draws by few-step weights"),
        ("turbo:lcmm", "there are no few-step weights 'lcmm'"),
        ("turbo:", "there are no few-step weights ''"),
        ("turbo:lcm=", "write turbo:NAME=FILE"),
    ],
)
def test_another_word_is_refused(given, told):
    with pytest.raises(SettingsError, match=re.escape(told)):
        Speed.of(given)


@pytest.mark.parametrize("name", STUDENTS)
def test_a_student_draws_as_it_was_trained(name):
    student = STUDENTS[name]
    sampling = student.applied(Sampling(steps=50, guidance=5.0, merge=0.2, guidance_stop=0.5, seed=3))
    assert (sampling.steps, sampling.scheduler, sampling.guidance) == (student.steps, student.scheduler, 1.0)
    assert (sampling.merge, sampling.seed) == (0.2, 3)
    assert 4 <= student.steps <= 8
    assert student.file.endswith(".safetensors")


def test_every_way_takes_the_usual_steps():
    assert all(1 <= way.applied(Sampling()).steps <= 20 for way in WAYS.values())
