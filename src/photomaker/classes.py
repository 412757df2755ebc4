"""Class words: the nouns that a person's identity can take the place of, as prompts and captions write them."""

from __future__ import annotations

import re
from dataclasses import dataclass

CLASS_WORDS = (
    "man", "woman", "boy", "girl", "person", "guy", "lady", "gentleman", "child", "kid", "baby", "toddler",
    "teenager", "adult", "male", "female", "human", "father", "mother", "grandfather", "grandmother", "grandpa",
    "grandma", "king", "queen", "prince", "princess", "actor", "actress",
)  # fmt: skip

_IRREGULAR = {
    "man": "men", "woman": "women", "person": "people", "lady": "ladies", "gentleman": "gentlemen",
    "child": "children", "baby": "babies", "princess": "princesses", "actress": "actresses",
}  # fmt: skip
SINGULARS = {_IRREGULAR.get(word, word + "s"): word for word in CLASS_WORDS} | {"persons": "person"}
"""Plural -> singular."""

_ANY = re.compile(rf"\b({'|'.join((*CLASS_WORDS, *SINGULARS))})\b", flags=re.IGNORECASE)


@dataclass(frozen=True)
class ClassWord:
    """A class word where it stands in a text.

    Attributes:
        word: In lower case, in the singular.
        start: Where it begins, in characters.
        end: Where it ends; `text[start:end]` is the word as it stands there.
    """

    word: str
    start: int
    end: int


def class_words(text: str) -> list[ClassWord]:
    """The class words of a text in order, plurals among them."""
    found = []
    for match in _ANY.finditer(text):
        word = match[0].lower()
        found.append(ClassWord(SINGULARS.get(word, word), *match.span()))
    return found


_TRAITS: dict[str, tuple[str | None, str | None, str | None]] = {
    "man": ("male", "adult", None), "woman": ("female", "adult", None), "boy": ("male", "child", None),
    "girl": ("female", "child", None), "person": (None, None, None), "guy": ("male", None, None),
    "lady": ("female", "adult", None), "gentleman": ("male", "adult", None), "child": (None, "child", None),
    "kid": (None, "child", None), "baby": (None, "baby", None), "toddler": (None, "baby", None),
    "teenager": (None, "teenager", None), "adult": (None, "adult", None), "male": ("male", None, None),
    "female": ("female", None, None), "human": (None, None, None), "father": ("male", "adult", "parent"),
    "mother": ("female", "adult", "parent"), "grandfather": ("male", "adult", "grandparent"),
    "grandmother": ("female", "adult", "grandparent"), "grandpa": ("male", "adult", "grandparent"),
    "grandma": ("female", "adult", "grandparent"), "king": ("male", "adult", "royal"),
    "queen": ("female", "adult", "royal"), "prince": ("male", None, "royal"),
    "princess": ("female", None, "royal"), "actor": (None, None, "actor"), "actress": ("female", None, "actor"),
}  # fmt: skip
"""Gender, age and part that a class word tells; None if it leaves that open."""


def fitting(word: str) -> tuple[str, ...]:
    """The class words that are true of everybody whom a class word is true of: "man" gives man, person, guy, ..."""
    told = _TRAITS[word]
    return tuple(
        other
        for other, traits in _TRAITS.items()
        if all(trait in (None, mine) for trait, mine in zip(traits, told, strict=True))
    )


def kinship(first: str, second: str) -> float:
    """How alike two class words are in 0..1: the mean over gender, age and part, half where one leaves it open."""
    if first == second:
        return 1.0
    pairs = zip(_TRAITS[first], _TRAITS[second], strict=True)
    return sum(1.0 if a == b else 0.5 if None in (a, b) else 0.0 for a, b in pairs) / 3 * 0.95
