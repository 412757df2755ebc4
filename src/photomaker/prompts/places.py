"""Positions of several people stated in a prompt."""

from __future__ import annotations

import re

from photomaker.prompts.trigger import TRIGGER, parse_subjects

PLACES = ("left", "middle", "right")
_WORDS = {"left": "left", "middle": "middle", "center": "middle", "centre": "middle", "right": "right"}
SAID = re.compile(rf"\b(?:on|in|at|to)\s+the\s+({'|'.join(_WORDS)})\b", re.IGNORECASE)
"""Words that give somebody a place."""


def places_said(prompt: str, people: int, trigger: str = TRIGGER) -> tuple[str, ...] | None:
    """The positions of a prompt's people, such as ("left", "right").

    Args:
        prompt: For example "a man img on the left and a woman img on the right in the snow".
        people: How many there are.
        trigger: The trigger word.

    Returns:
        One of `PLACES` for each, or None if the prompt does not give each a different one.

    Raises:
        PromptError: See `parse_subjects`.
    """
    # the text between a person's trigger and the next one's describes this person
    said = [SAID.findall(part.text) for part in parse_subjects(prompt, people, trigger)[1:]]
    found = tuple(_WORDS[words[0].lower()] for words in said if words)
    return found if len(found) == people == len(set(found)) else None
