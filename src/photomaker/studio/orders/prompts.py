"""Checks a prompt before anything is opened."""

from __future__ import annotations

from photomaker.errors import PromptError
from photomaker.prompts import TRIGGER, insert_trigger
from photomaker.prompts.trigger import parse_subjects


def check_prompt(prompt: str, negative: str | None = None, people: int = 1) -> str:
    """The prompt with its trigger word.

    Args:
        prompt: For example `a photo of a woman wearing sunglasses`; a missing trigger is added after the class word.
        negative: What the picture should not show; it must not contain the trigger.
        people: Number of people in the picture, each with a trigger.

    Raises:
        PromptError: The prompt is empty, has no class word or too few triggers, or the negative prompt has a trigger.
    """
    if not prompt.strip():
        raise PromptError("the prompt is empty; write for example 'a photo of a woman img in the snow'")
    if negative and TRIGGER in negative.lower().split():
        raise PromptError(
            f"the negative prompt {negative!r} contains the trigger word {TRIGGER!r}; remove it there"
        )
    complete = insert_trigger(prompt.strip(), people=people)
    parse_subjects(complete, people)
    return complete
