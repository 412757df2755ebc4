r"""Prompt weights: `(red hat:1.3)` lets a part of the prompt count more, `(red hat:0.7)` less.

Groups may be nested, their weights multiply. Parentheses without a number are text, as they are for the tokenizer;
`\\(` is one where a number follows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

from photomaker.errors import PromptError

MOST = 5.0
_MARKS = re.compile(
    r"\\(?P<escaped>[()])|(?P<open>\()|:\s*(?P<weight>[+-]?(?:\d+\.?\d*|\.\d+))\s*\)|(?P<close>\))"
)


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

    def runs(self) -> list[tuple[str, float]]:
        """Stretches of equal weight, in order."""
        edges = [k for k in range(1, len(self.text)) if self.weights[k] != self.weights[k - 1]]
        bounds = [0, *edges, len(self.text)]
        return [(self.text[start:end], self.weights[start]) for start, end in pairwise(bounds) if end > start]


def read_weights(prompt: str) -> WeightedText:
    """Take the weight marks out of a prompt.

    Args:
        prompt: For example "a man img in (heavy snow:1.3)".

    Raises:
        PromptError: A weight is not in 0..5.
    """
    text: list[str] = []
    weights: list[float] = []
    opened: list[int] = []  # places of the parentheses in `text` that are not closed yet
    at = 0
    for mark in _MARKS.finditer(prompt):
        text.extend(prompt[at : mark.start()])
        weights.extend([1.0] * (mark.start() - at))
        at = mark.end()
        if mark["escaped"]:
            text.append(mark["escaped"])
            weights.append(1.0)
        elif mark["weight"] and opened:
            start, factor = opened.pop(), _checked(float(mark["weight"]), prompt)
            del text[start], weights[start]
            weights[start:] = [weight * factor for weight in weights[start:]]
        else:
            if mark["open"]:
                opened.append(len(text))
            elif opened:
                opened.pop()
            text.extend(mark.group())
            weights.extend([1.0] * len(mark.group()))
    text.extend(prompt[at:])
    weights.extend([1.0] * (len(prompt) - at))
    return WeightedText("".join(text), tuple(weights))


def _checked(weight: float, prompt: str) -> float:
    if not 0 <= weight <= MOST:
        raise PromptError(
            f"the weight {weight:g} in {prompt!r} is not from 0 to {MOST:g}; change it, "
            "or write '\\(' where the parenthesis is part of the text"
        )
    return weight
