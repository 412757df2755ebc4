"""The curve of speed and likeness on fakes: what is drawn how, what is kept, what is written."""

import json
from dataclasses import replace

import pytest
from tests.evaluation.fakes import TOOLS, FakeMethod

from photomaker.errors import SettingsError
from photomaker.evaluation.metrics import Interval
from photomaker.evaluation.plans.speed import page as speed_report
from photomaker.evaluation.plans.speed import plan as speed
from photomaker.evaluation.plans.speed.settings import Row, SpeedSettings
from photomaker.speeds import PRESETS
from photomaker.types import Sampling, Shortcuts

WAYS = ("fast", "own 10")


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    return SpeedSettings(
        people=3, prompts=2, seeds=1, split="validation", ways=WAYS, rounds=2,
        out=tmp_path_factory.mktemp("speed"), processes=1, samples=20,
    )  # fmt: skip


@pytest.fixture(scope="module")
def rows(settings):
    return speed.measured(settings, lambda *_: None, TOOLS)


def test_the_exact_way_is_what_all_stand_beside(rows):
    assert [row.name for row in rows] == ["exact", *WAYS]
    exact = rows[0]
    assert exact.figures["likeness_share"].value == pytest.approx(1)
    assert exact.figures["accuracy_points"].value == 0
    assert exact.sampling == Sampling()
    assert rows[1].sampling == PRESETS["fast"].applied(Sampling())
    assert all(row.share > 0 and row.seconds > 0 for row in rows)
    # the fake draws by seed and merge step alone, so that all ways reach the same
    assert all(row.figures["likeness_share"].value == pytest.approx(1) for row in rows)


def test_a_second_run_draws_nothing(settings, rows):
    before = FakeMethod.generated
    again = speed.measured(settings, lambda *_: None, TOOLS)
    assert FakeMethod.generated == before
    assert [row.share for row in again] == [row.share for row in rows]


def test_one_more_way_draws_that_way_alone(settings, rows):
    before = FakeMethod.generated
    more = speed.measured(replace(settings, ways=(*WAYS, "unipc 10")), lambda *_: None, TOOLS)
    assert more[-1].name == "unipc 10"
    pictures, timed = 3 * 2, 1 + 1 + 2 * 2  # to warm up, to count, and two rounds beside the exact way
    assert FakeMethod.generated - before == pictures + timed


def test_the_page_says_what_reaches_the_bar(settings, rows):
    result = speed.run(settings, lambda *_: None, TOOLS)
    page = result.markdown.read_text()
    assert "| own 10 | 10 steps |" in page
    assert 'photomaker speed --people 3 --prompts 2 --seeds 1 --split validation --ways "fast;own 10"' in page
    assert json.loads(result.json.read_text())["ways"][0]["name"] == "exact"
    assert result.plots[0].read_bytes().startswith(b"\x89PNG")


def row(share=0.4, likeness=0.99, points=0.0, sharpness=1.0):
    def sure(value):
        return Interval(value, value, value, 3)

    figures = {"likeness_share": likeness, "accuracy_points": points, "sharpness_share": sharpness}
    return Row("x", Sampling(), {name: sure(value) for name, value in figures.items()}, 1.0, share, 1.0)


@pytest.mark.parametrize(
    ("change", "reached"),
    [
        ({}, True), ({"share": 0.51}, False), ({"likeness": 0.97}, False), ({"points": -0.02}, False),
        ({"sharpness": 0.5}, False),
    ],
)  # fmt: skip
def test_a_preset_must_be_fast_and_good(change, reached):
    assert speed_report.BARS["fast"].reached(row(**change)) is reached


def test_a_way_in_words():
    sampling = Sampling(10, scheduler="unipc", guidance_stop=0.5, shortcuts=Shortcuts(2, 0.3, 1, 0.6))
    words = "10 steps, unipc, guidance 0 to 0.5, words to 0.6, deep layers every 2, from 0.3, outer 1"
    assert speed_report.told(sampling) == words


def test_an_unknown_way_is_told():
    with pytest.raises(SettingsError, match="there is no way 'warp'"):
        SpeedSettings(ways=("warp",))
    with pytest.raises(SettingsError, match="rounds is 0"):
        SpeedSettings(rounds=0)
