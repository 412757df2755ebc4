"""Captions: drawn until they name a person, the same however photos are cut, scored only where there is a choice."""

import numpy as np
import pytest
from PIL import Image
from tests.dataset.model_fakes import FakeCaptioner, FakeScorer, photo

from photomaker.classes import class_words
from photomaker.dataset.caption import GREY, Caption, seed_of
from photomaker.errors import SettingsError
from photomaker.faces.plugins import PlugIn
from photomaker.faces.words import RuleParser

LIKELY = ["a photo of a woman", "a face", "two men and a girl in the snow", "snow"]


@pytest.fixture
def plugged(monkeypatch):
    parts = {
        "captioner": FakeCaptioner(LIKELY),
        "phrase parser": RuleParser(),
        "text-image scorer": FakeScorer(),
    }
    monkeypatch.setattr(PlugIn, "open", lambda _, kind: parts[kind])
    return parts


def photos():
    mask = np.zeros((64, 64), np.uint8)
    mask[10:40, 20:50] = 255
    return [
        photo(f"{place:05d}", Image.new("RGB", (64, 64), (9, 9, place)), mask) for place in range(len(LIKELY))
    ]


def test_captions_are_drawn_until_a_class_word_occurs(plugged):
    results = list(Caption(tries=30).open()(photos()))
    rows = [one.row for one in results]
    assert [row["caption"] for row in rows][::2] == LIKELY[::2]
    assert [row["tries"] for row in rows][::2] == [1, 1]
    for row in rows[1::2]:
        seeds = [seed_of(row["key"], number) for number in range(1, row["tries"])]
        assert row["tries"] > 1 and row["caption"] == f"a man {seeds[-1]}"
        assert all(seed % 3 for seed in seeds[:-1])
    assert all(one.files == given.files for one, given in zip(results, photos(), strict=True))


def test_tries_come_to_an_end(plugged):
    never = FakeCaptioner(LIKELY)
    never.caption_batch = lambda images, seeds=None: ["a face"] * len(images)
    plugged["captioner"] = never
    for one in Caption(tries=3).open()(photos()):
        assert (one.row["tries"], one.row["candidates"], one.row["caption"]) == (3, [], "a face")


@pytest.mark.usefixtures("plugged")
def test_batches_change_nothing():
    assert list(Caption().open()(photos())) == list(Caption(batch=3).open()(photos()))


def test_phrases_are_scored_against_the_person_alone_where_there_are_several(plugged):
    rows = [one.row for one in Caption(tries=1).open()(photos())]
    assert rows[0]["candidates"] == [
        {"word": "woman", "start": 13, "end": 18, "segment": "a woman", "clip": None}
    ]
    first, second = rows[2]["candidates"]
    assert (first["word"], first["start"], first["end"], first["segment"]) == ("man", 4, 7, "two men")
    assert (second["word"], second["segment"]) == ("girl", "a girl in the snow")
    assert second["clip"] > first["clip"] > 0
    ((region, texts),) = plugged["text-image scorer"].calls
    assert region.size == (30, 30) and texts == ["two men", "a girl in the snow"]


@pytest.mark.usefixtures("plugged")
def test_what_is_not_the_person_is_grey():
    from tests.dataset.model_fakes import png

    from photomaker.dataset.caption import person_region

    mask = np.zeros((20, 20), np.uint8)
    mask[5, 5:15] = mask[5:15, 5] = 255
    region = person_region(Image.new("RGB", (20, 20), (200, 0, 0)), png(Image.fromarray(mask)))
    assert region.size == (10, 10)
    assert region.getpixel((0, 0)) == (200, 0, 0) and region.getpixel((9, 9)) == GREY


def test_seeds_depend_on_key_and_try():
    seeds = {seed_of(key, number) for key in ("a", "b", "1 a") for number in (1, 2, 11)}
    assert len(seeds) == 9 and all(0 <= seed < 2**63 for seed in seeds)
    assert seed_of("00001", 2) == 6986731028501080993


def test_settings_out_of_range():
    with pytest.raises(SettingsError, match="tries is 0"):
        Caption(tries=0)


@pytest.mark.bundled
def test_the_bundled_plug_ins():
    from photomaker.synthetic import TEST, person, render, view

    someone = person(TEST + 40)
    given = []
    for place in range(6):
        picture = render(someone, view(someone, place, style="photo"), 128)
        given.append(photo(str(place), Image.fromarray(picture.image), picture.mask))
    step = Caption(PlugIn(), PlugIn("rules"), PlugIn()).open()
    results = list(step(given))
    assert all(class_words(one.row["caption"]) for one in results)
    assert results == [result for one in given for result in step([one])]
