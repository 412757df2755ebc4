r"""Prompt weights: `(red hat:1.3)` strengthens a part of the prompt, `(red hat:0.7)` weakens it.

Groups may be nested, their weights multiply. Brackets without a number are text, as they are for the tokenizer and in
the official code; `\(` is one where a number follows. Only in prompts that have some between class word and trigger,
such as `((man)) img`, which the official code cannot draw, all brackets are emphasis: `(x)` is 1.1 and `[x]` 1/1.1.

Source: the emphasis of AUTOMATIC1111's web interface.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from photomaker.errors import PromptError

MOST = 5.0
EMPHASIS = 1.1
_NUMBER = r":\s*(?P<weight>[+-]?(?:\d+(?:\.\d*)?|\.\d+))\s*"
_MARKS = re.compile(rf"\\(?P<escaped>[()])|(?P<open>\()|(?:{_NUMBER})?(?P<close>\))")
_EMPHASIS_MARKS = re.compile(rf"\\(?P<escaped>[()\[\]])|(?P<open>[(\[])|(?:{_NUMBER})?(?P<close>[)\]])")
_PARTNERS = {")": "(", "]": "["}
_FACTORS = {")": EMPHASIS, "]": 1 / EMPHASIS}


@dataclass(frozen=True)
class WeightedText:
    """A text without its weight marks.

    Attributes:
        text: The text.
        weights: Weight of each of its characters.
    """

    text: str
    weights: tuple[float, ...]

    @property
    def plain(self) -> bool:
        """Whether every weight is 1."""
        return all(weight == 1 for weight in self.weights)

    def part(self, start: int, end: int) -> WeightedText:
        """The characters from `start` to before `end`."""
        return WeightedText(self.text[start:end], self.weights[start:end])

    @property
    def marked(self) -> str:
        """The text with its weight marks, as `read_weights` reads it; brackets in it are escaped."""
        parts = [(re.sub(r"([()])", r"\\\1", text), weight) for text, weight in self.runs()]
        return "".join(text if weight == 1 else f"({text}:{weight:.10g})" for text, weight in parts)

    def runs(self) -> list[tuple[str, float]]:
        """Stretches of equal weight, in order."""
        edges = [k for k in range(1, len(self.text)) if self.weights[k] != self.weights[k - 1]]
        bounds = [0, *edges, len(self.text)]
        return [(self.text[start:end], self.weights[start]) for start, end in pairwise(bounds) if end > start]


def read_weights(prompt: str, emphasis: bool = False) -> WeightedText:
    """Remove the weight marks from a prompt.

    Args:
        prompt: For example "a man img in (heavy snow:1.3)".
        emphasis: Whether brackets without a number are marks too. One that is escaped or has no partner stays text.

    Raises:
        PromptError: A weight is not in 0..5, or stands in square brackets.
    """
    text: list[str] = []  # characters; those of marks are emptied, so that the places of the others stay
    groups: list[tuple[int, int, float]] = []  # from, to, factor
    opened: list[int] = []  # places of the brackets that are not closed yet
    at = 0
    for mark in (_EMPHASIS_MARKS if emphasis else _MARKS).finditer(prompt):
        text.extend(prompt[at : mark.start()])
        at = mark.end()
        if mark["open"]:
            opened.append(len(text))
        closes = mark["close"] and opened and text[opened[-1]] == _PARTNERS[mark["close"]]
        start = opened.pop() if closes else None
        factor = None if start is None else _factor(mark, emphasis, prompt)
        if start is None or factor is None:
            text.extend(mark["escaped"] or mark.group())
        else:
            text[start] = ""
            groups.append((start, len(text), factor))
    text.extend(prompt[at:])
    return _weighted(text, groups, prompt)


def _factor(mark: re.Match[str], emphasis: bool, prompt: str) -> float | None:
    """The factor of a closing bracket's group; None if the bracket is text."""
    if not mark["weight"]:
        return _FACTORS[mark["close"]] if emphasis else None
    if mark["close"] == "]":
        raise PromptError(
            f"{mark.group()!r} in {prompt!r} is a number in square brackets; write (word:0.8) for a weight of 0.8"
        )
    return _checked(float(mark["weight"]), prompt)


def _weighted(text: list[str], groups: list[tuple[int, int, float]], prompt: str) -> WeightedText:
    weights = np.ones(len(text))
    for start, end, factor in groups:
        weights[start:end] *= factor
    kept = [place for place, letter in enumerate(text) if letter]
    weights = weights[kept]
    if len(weights):
        _checked(float(weights.max()), prompt)
    return WeightedText("".join(text), tuple(weights.tolist()))


def _checked(weight: float, prompt: str) -> float:
    if not 0 <= weight <= MOST:
        raise PromptError(
            f"the weight {weight:g} in {prompt!r} is not from 0 to {MOST:g}; change it, "
            "or write '\\(' if a bracket is part of the text"
        )
    return weight
