"""A prompt of several people cut into one for each."""

import pytest

from photomaker.errors import PromptError
from photomaker.prompts import parse, read_weights
from photomaker.prompts.alone import prompts_of_each


@pytest.mark.parametrize(
    ("prompt", "each"),
    [
        (
            "a photo of a woman img on the left and a man img on the right in the snow",
            ("a photo of a woman img", "a photo of a man img in the snow"),
        ),
        (
            "a photo of a man img in a suit and a woman img in red, on the beach",
            ("a photo of a man img in a suit, on the beach", "a photo of a woman img in red, on the beach"),
        ),
        (
            "a pencil sketch of an old man img wearing a beret, a girl img and a boy img with a dog. rough paper",
            (
                "a pencil sketch of an old man img wearing a beret. rough paper",
                "a pencil sketch of a girl img. rough paper",
                "a pencil sketch of a boy img with a dog. rough paper",
            ),
        ),
        ("portrait of man img and woman img", ("portrait of man img", "portrait of woman img")),
        (
            "two people, a woman img next to a man img at the center",
            ("a woman img", "a man img"),
        ),
        (
            "a woman img in a (red hat:1.3) and a (man:1.2) img",
            ("a woman img in a (red hat:1.3)", "a (man:1.2) img"),
        ),
        ("a photo of a woman img", ("a photo of a woman img",)),
    ],
)
def test_everybody_gets_their_own_words(prompt, each):
    assert prompts_of_each(prompt, len(each)) == each
    for one in each:
        assert parse(one).class_word in ("woman", "man", "girl", "boy")


def test_hats_and_clothes_stay_with_whom_they_were_said_of():
    first, second = prompts_of_each(
        "a man img wearing a red cap on the left and a woman img wearing a suit on the right", 2
    )
    assert "cap" in first and "suit" not in first
    assert "suit" in second and "cap" not in second


def test_a_trigger_too_few_is_told():
    with pytest.raises(PromptError, match="'img' 1 times, but there are 2 people"):
        prompts_of_each("a man img and a woman", 2)


@pytest.mark.parametrize("prompt", ["a (red hat:1.3) here", r"a \(real:1.2\) thing", "((deep:1.2) snow:0.5)"])
def test_marks_are_written_as_they_are_read(prompt):
    read = read_weights(prompt)
    again = read_weights(read.marked)
    assert (again.text, again.weights) == (read.text, pytest.approx(read.weights))
