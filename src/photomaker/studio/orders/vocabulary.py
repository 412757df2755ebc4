"""Words of a prompt that the bundled model has never seen in its training captions."""

from __future__ import annotations

import re
from collections.abc import Sequence

from photomaker.prompts.trigger import without_triggers
from photomaker.synthetic.captions import vocabulary

_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")
_SMALL = frozenset(
    {
        "a", "an", "and", "are", "as", "at", "be", "beside", "but", "by", "for", "from", "he", "her", "him",
        "his", "in", "into", "is", "it", "its", "near", "of", "on", "or", "over", "she", "that", "the",
        "their", "they", "this", "to", "under", "up", "was", "who", "while", "with",
    }
)  # fmt: skip
"""Words without visual content."""


def unknown_words(prompt: str) -> tuple[str, ...]:
    """The words of a prompt that the bundled model has never seen, in order, each once.

    Args:
        prompt: Complete, with its triggers; prompt weights do not count as words.
    """
    words = [word.lower() for word in _WORD.findall(without_triggers(prompt))]
    known = vocabulary() | _SMALL
    return tuple(dict.fromkeys(word for word in words if word not in known))


def unknown_note(prompts: Sequence[str]) -> str | None:
    """One sentence on all such words of some prompts; None if there are none."""
    words = list(dict.fromkeys(word for prompt in prompts for word in unknown_words(prompt)))
    if not words:
        return None
    return (
        f"the bundled model has never seen: {', '.join(words)}; it will most likely ignore that; it knows the words "
        "of docs/small_model.md"
    )
