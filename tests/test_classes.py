"""Class words: found, brought into the singular, compared."""

import pytest

from photomaker import classes
from photomaker.classes import CLASS_WORDS, ClassWord, class_words, fitting, kinship


def test_class_words_are_found_where_they_stand():
    text = "Two Men, a woman's hat and 3 children; manly people"
    found = class_words(text)
    assert [one.word for one in found] == ["man", "woman", "child", "person"]
    assert [text[one.start : one.end] for one in found] == ["Men", "woman", "children", "people"]
    assert class_words("a close up of a face") == []
    assert class_words("a man") == [ClassWord("man", 2, 5)]


@pytest.mark.parametrize(
    ("plural", "word"),
    [("ladies", "lady"), ("princesses", "princess"), ("princes", "prince"), ("guys", "guy"), ("babies", "baby"),
     ("gentlemen", "gentleman"), ("persons", "person"), ("actresses", "actress"), ("humans", "human")],
)  # fmt: skip
def test_plurals(plural, word):
    assert [one.word for one in class_words(f"some {plural} here")] == [word]


def test_every_class_word_can_be_compared():
    assert set(classes._TRAITS) == set(CLASS_WORDS)
    assert len(classes.SINGULARS) == len(CLASS_WORDS) + 1


def test_words_that_are_true_of_the_same_people():
    assert {"man", "guy", "gentleman", "person", "adult", "male", "human"} == set(fitting("man"))
    assert {"girl", "child", "kid", "person", "female", "human"} == set(fitting("girl"))
    assert "king" in fitting("king") and "man" in fitting("king")


def test_kinship_orders_words_as_people_would():
    assert kinship("man", "man") == 1
    assert 1 > kinship("gentleman", "man") > kinship("person", "man") > kinship("girl", "man")
    assert kinship("guy", "man") > kinship("woman", "man") > 0
    assert kinship("boy", "girl") == kinship("girl", "boy")
