"""Phrases around class words, and similarity of class words, by rules: no model and no download."""

from __future__ import annotations

import re
from collections.abc import Sequence

from photomaker.classes import ClassWord, kinship
from photomaker.faces.base import PhraseParser, TextSimilarity

_DETERMINERS = frozenset((
    "a", "an", "the", "this", "that", "these", "those", "some", "his", "her", "their", "my", "our", "your", "one",
    "two", "three", "four", "five", "several", "many",
))  # fmt: skip
_BREAKS = frozenset((
    "and", "or", "but", "with", "in", "on", "at", "of", "by", "near", "beside", "behind", "for", "from", "to", "as",
    "while", "is", "are", "was", "were", "wearing",
))  # fmt: skip
_REACH = 4
"""Adjectives that may stand between a determiner and its noun."""
_TAIL = re.compile(r"[\s,;.:]+$|\s+(?:and|or|with|of|by|near|beside|behind|to|next|from|while|one)$")


class RuleParser(PhraseParser):
    """A window: from the determiner before a class word to where the next class word's phrase begins."""

    @classmethod
    def open(cls) -> RuleParser:
        """Needs no arguments."""
        return cls()

    def phrases(self, text: str, words: Sequence[ClassWord]) -> list[str]:
        """See `PhraseParser.phrases`."""
        limits = [0, *(word.end for word in words)]
        starts = [_beginning(text, word.start, limit) for word, limit in zip(words, limits, strict=False)]
        ends = [*starts[1:], len(text)]
        return [_trimmed(text[start:end]) for start, end in zip(starts, ends, strict=False)]


def _beginning(text: str, start: int, limit: int) -> int:
    """Where the noun phrase that ends at `start` begins, not before `limit`."""
    found = start
    for match in reversed(list(re.finditer(r"[^\s]+", text[limit:start]))[-_REACH - 1 :]):
        word = match[0].lower()
        if not word[-1].isalpha() or word in _BREAKS:
            break
        found = limit + match.start()
        if word in _DETERMINERS:
            break
    return found


def _trimmed(text: str) -> str:
    while (shorter := _TAIL.sub("", text)) != text:
        text = shorter
    return text


class RuleSimilarity(TextSimilarity):
    """By gender, age and part that the words tell; see `photomaker.classes.kinship`."""

    @classmethod
    def open(cls) -> RuleSimilarity:
        """Needs no arguments."""
        return cls()

    def similarity(self, words: Sequence[str], word: str) -> list[float]:
        """See `TextSimilarity.similarity`."""
        return [kinship(one, word) for one in words]
