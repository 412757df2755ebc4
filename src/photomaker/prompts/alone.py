"""What a prompt of several people says of each of them alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import chain

from photomaker.prompts.places import SAID
from photomaker.prompts.trigger import TRIGGER, parse_subjects
from photomaker.prompts.weights import WeightedText

_ARTICLE = re.compile(r"\b(?:an?|the|one|another|his|her|their|my|our)\b", re.IGNORECASE)
_JOINED = r"(?:and|with|of|by|to|near|next|beside|behind|plus)\b|&"
_JOINT = re.compile(rf"(?:\b(?:{_JOINED})|[,.;:])\s+", re.IGNORECASE)
_LOOSE_END = re.compile(rf"(?:[\s,;]|\b(?:{_JOINED}))+$", re.IGNORECASE)
_EVERYBODY = re.compile(r"\s*[,.;]\s")
_COUNTED = re.compile(r"\b(?:two|three|four|both|several|couple|pair|people|friends)\b", re.IGNORECASE)


def prompts_of_each(prompt: str, people: int, trigger: str = TRIGGER) -> tuple[str, ...]:
    """A prompt for each of several people alone.

    To each belong the words before their own article, such as "a photo of", their own words up to the next person's
    article, and what follows the first comma or full stop behind the last person, which is said of everybody. Words
    for places, such as "on the left", are left out.

    Args:
        prompt: For example "a photo of a man img in a suit and a woman img in red, on the beach".
        people: How many there are.
        trigger: The trigger word.

    Returns:
        For the example "a photo of a man img in a suit, on the beach" and "a photo of a woman img in red, on the
        beach".

    Raises:
        PromptError: See `parse_subjects`.
    """
    if people == 1:
        return (prompt,)
    parts = [_without(part, SAID) for part in parse_subjects(prompt, people, trigger)]
    starts = [_noun(part.text) for part in parts[:-1]]
    before = parts[0].part(0, starts[0])
    if _COUNTED.search(before.text):
        before = before.part(0, 0)
    nouns = [part.part(start, len(part.text)) for part, start in zip(parts, starts, strict=False)]
    end = _EVERYBODY.search(parts[-1].text)
    cut = end.start() if end else len(parts[-1].text)
    said = [_tied(part.part(0, start)) for part, start in zip(parts[1:-1], starts[1:], strict=True)]
    said.append(parts[-1].part(0, cut))
    everybody = parts[-1].part(cut, len(parts[-1].text))
    mark = WeightedText(f" {trigger}", (1.0,) * (len(trigger) + 1))
    return tuple(
        _together([before, _tied(noun), mark, own, everybody]).marked
        for noun, own in zip(nouns, said, strict=True)
    )


def _noun(text: str) -> int:
    """Where the words for the person begin that a text ends with."""
    articles = [found.start() for found in _ARTICLE.finditer(text)]
    joints = [found.end() for found in _JOINT.finditer(text)]
    return max([0, *articles, *joints])


def _without(part: WeightedText, words: re.Pattern[str]) -> WeightedText:
    """A text without some of its words, and without the blank before them."""
    edges = [0, *chain.from_iterable(found.span() for found in words.finditer(part.text)), len(part.text)]
    kept = [part.part(start, end) for start, end in zip(edges[::2], edges[1::2], strict=True)]
    return _together([*(_tied(one, blanks=True) for one in kept[:-1]), kept[-1]])


def _tied(part: WeightedText, blanks: bool = False) -> WeightedText:
    """A text without what hangs loose at its end: blanks, or also commas and words that join people."""
    if blanks:
        return part.part(0, len(part.text.rstrip()))
    loose = _LOOSE_END.search(part.text)
    return part.part(0, loose.start() if loose else len(part.text))


def _together(parts: Sequence[WeightedText]) -> WeightedText:
    return WeightedText("".join(one.text for one in parts), tuple(chain(*(one.weights for one in parts))))
