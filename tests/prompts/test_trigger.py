"""Where the trigger is, where it belongs, and what is said where it cannot be."""

import pytest

from photomaker.errors import PromptError
from photomaker.prompts import insert_trigger, parse


@pytest.mark.parametrize(
    ("prompt", "before", "after", "word"),
    [
        ("a photo of a man img on the beach", "a photo of a man ", " on the beach", "man"),
        ("an old man img", "an old man ", "", "man"),
        ("a manimg, smiling", "a man", ", smiling", "man"),
        ("a man IMG smiling", "a man ", " smiling", "man"),
        ("a woman imgs", "a woman ", "s", "woman"),
        ("a photo of an astronaut img", "a photo of an astronaut ", "", "astronaut"),
        ("the man img with an imgur mug", "the man ", " with an imgur mug", "man"),
    ],
)
def test_a_prompt_is_cut_at_its_trigger(prompt, before, after, word):
    parsed = parse(prompt)
    assert (parsed.before, parsed.after, parsed.class_word) == (before, after, word)


@pytest.mark.parametrize(
    ("prompt", "wanted"),
    [
        ("a photo of a woman in the snow", "a photo of a woman img in the snow"),
        ("an old man, smiling", "an old man img, smiling"),
        ("A Boy", "A Boy img"),
        ("humanity: a girl", "humanity: a girl img"),
        ("a man img", "a man img"),
    ],
)
def test_a_missing_trigger_goes_behind_the_class_word(prompt, wanted):
    assert insert_trigger(prompt) == wanted


def test_another_trigger_word():
    assert parse("a man sks in the snow", "sks").after == " in the snow"
    assert insert_trigger("a man img", "sks") == "a man sks img"


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("a man img and a woman img", "2 times"),
        ("img standing on a beach", "no class word before"),
        ("img", "no class word before"),
        ("a man, img", "no class word before"),
        ("man-img", "no class word before"),
        ("a castle in the snow", "no class word for the person"),
        ("", "no class word"),
    ],
)
def test_an_impossible_prompt_is_told_with_class_words(prompt, words):
    with pytest.raises(PromptError, match=words) as caught:
        parse(prompt)
    assert "img" in str(caught.value)
    assert "times" in words or "old woman" in str(caught.value)
