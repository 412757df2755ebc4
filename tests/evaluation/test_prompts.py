"""Prompts say what their table says they state."""

from __future__ import annotations

from collections import Counter

import pytest

from photomaker import synthetic
from photomaker.evaluation.prompts import ATTRIBUTES, PROMPTS, BenchPrompt

WORDS = {
    "style": synthetic.STYLES, "scene": synthetic.SCENES, "hat": synthetic.HATS, "hat_colour": synthetic.COLOURS,
    "eyewear": synthetic.EYEWEAR, "clothing": synthetic.CLOTHES, "clothing_colour": synthetic.COLOURS,
}  # fmt: skip


@pytest.mark.parametrize("prompt", PROMPTS, ids=lambda prompt: prompt.name)
def test_every_stated_word_is_in_the_text_and_known_to_the_world(prompt: BenchPrompt) -> None:
    text = prompt.text("woman", "img")
    for attribute, word in prompt.states.items():
        assert word in WORDS[attribute]
        assert word in text
    assert text.count("a woman img") == 1


@pytest.mark.parametrize("prompt", PROMPTS, ids=lambda prompt: prompt.name)
def test_every_colour_and_garment_in_the_text_is_stated(prompt: BenchPrompt) -> None:
    stated = set(prompt.states.values())
    words = prompt.template.replace(",", " ").split()
    for word in (*synthetic.COLOURS, *synthetic.CLOTHES, *synthetic.EYEWEAR[1:]):
        assert (word in words) == (word in stated)


def test_there_are_twelve_or_more_and_every_attribute_is_stated_often() -> None:
    assert len(PROMPTS) >= 12
    assert len({prompt.name for prompt in PROMPTS}) == len(PROMPTS)
    counts = Counter(attribute for prompt in PROMPTS for attribute in prompt.states)
    assert all(counts[name] >= 4 for name in ATTRIBUTES if name != "person_class")
    assert {prompt.states["style"] for prompt in PROMPTS} == set(synthetic.STYLES)


def test_articles_and_a_missing_trigger() -> None:
    assert PROMPTS[0].text("old man", "img") == "a photo of an old man img in a studio"
    assert PROMPTS[0].text("girl", "") == "a photo of a girl in a studio"
