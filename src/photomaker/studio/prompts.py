"""The check of a prompt, before anything is opened."""

from __future__ import annotations

from photomaker.errors import PromptError
from photomaker.prompts import TRIGGER, insert_trigger
from photomaker.prompts.trigger import parse_subjects


def check_prompt(prompt: str, negative: str | None = None, people: int = 1) -> str:
    """The prompt with its trigger word in place.

    Args:
        prompt: For example `a photo of a woman wearing sunglasses`; where the trigger is missing, it is put behind the
            class word.
        negative: What the picture shall not show; it must hold no trigger.
        people: How many are in the picture, each with a trigger of their own.

    Raises:
        PromptError: The prompt is empty, has no class word or not a trigger for each person, or the negative prompt has
            one.
    """
    if not prompt.strip():
        raise PromptError("the prompt is empty; write for example 'a photo of a woman img in the snow'")
    if negative and TRIGGER in negative.lower().split():
        raise PromptError(
            f"the negative prompt {negative!r} holds the trigger word {TRIGGER!r}; leave it out there"
        )
    complete = insert_trigger(prompt.strip(), people=people)
    parse_subjects(complete, people)
    return complete
