"""The trigger word: follows the class word and marks it as the word that the person replaces.

The trigger never reaches a tokenizer. The official code adds it to the tokenizer's vocabulary (where it then leaks into
saved pipelines); here the text is cut at the trigger and the two parts are tokenised, which gives the same ids.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from photomaker.classes import CLASS_WORDS
from photomaker.errors import PromptError
from photomaker.prompts.weights import WeightedText, read_weights

TRIGGER = "img"
_EXAMPLES = "man, woman, boy, girl, old man, old woman"
# a class word, then brackets, then the trigger
_PARTED = re.compile(r"\w\s*(?P<bracket>[()\[\]{}])[\s()\[\]{}]*$")


@dataclass(frozen=True)
class ParsedPrompt:
    """A prompt cut at its trigger.

    Attributes:
        before: Text up to the trigger; its last word is the class word.
        after: Text after the trigger.
        trigger: The trigger word.
        weights: The prompt weights of `before` and of `after`, a number for each character.
    """

    before: str
    after: str
    trigger: str = TRIGGER
    weights: tuple[tuple[float, ...], tuple[float, ...]] | None = None

    @property
    def class_word(self) -> str:
        """The word that the person replaces."""
        return re.split(r"[\s()\[\]]+", self.before.rstrip())[-1]

    @property
    def weighted(self) -> tuple[WeightedText, WeightedText]:
        """Both parts with their prompt weights."""
        first, second = self.weights or ((1.0,) * len(self.before), (1.0,) * len(self.after))
        return WeightedText(self.before, first), WeightedText(self.after, second)


def parse(prompt: str, trigger: str = TRIGGER) -> ParsedPrompt:
    """Read the prompt weights, and split a prompt at its trigger, or where a missing trigger belongs.

    The trigger is looked for as a word, then inside words ("manimg" is read as "man img", as the official tokenizer
    does), then as a word in other case ("IMG").

    Args:
        prompt: For example "a photo of a man img in the snow".
        trigger: The trigger word.

    Raises:
        PromptError: The prompt has several triggers, or no class word before the trigger, or neither class word nor
            trigger, or a weight out of range, or a bracket between class word and trigger that is not emphasis.
    """
    weighted = _read(prompt, trigger)
    parsed = _cut(weighted.text, trigger)
    if weighted.plain:
        return parsed
    # an added trigger is between the two parts, so that together they are the original text
    before = weighted.part(0, len(parsed.before.rstrip()))
    after = weighted.part(len(weighted.text) - len(parsed.after), len(weighted.text))
    return ParsedPrompt(before.text, after.text, trigger, (before.weights, after.weights))


def _read(prompt: str, trigger: str) -> WeightedText:
    """A prompt without its weight marks; brackets are marks where some part class word and trigger, see `weights`."""
    weighted = read_weights(prompt)
    text = insert_trigger(weighted.text, trigger)
    parted = any(_PARTED.search(text[:start]) for start, _ in _places(text, trigger))
    return read_weights(prompt, emphasis=True) if parted else weighted


def parse_subjects(prompt: str, subjects: int, trigger: str = TRIGGER) -> list[WeightedText]:
    """Cut a prompt at the triggers of several people.

    Args:
        prompt: For example "a man img and a woman img in the snow".
        subjects: Number of people.
        trigger: The trigger word.

    Returns:
        The text up to each trigger, which ends with that person's class word, and the text behind the last.

    Raises:
        PromptError: There are not as many triggers as people, or one has no class word before it; see `parse`.
    """
    if subjects == 1:
        return list(parse(prompt, trigger).weighted)
    weighted = _read(prompt, trigger)
    places = _places(weighted.text, trigger)
    if len(places) != subjects:
        raise PromptError(
            f"the prompt {prompt!r} has the trigger word {trigger!r} {len(places)} times, but there are {subjects} "
            f"people; put it after the class word of each, such as 'a man {trigger} and a woman {trigger}'"
        )
    starts = [0, *(end for _, end in places)]
    ends = [*(start for start, _ in places), len(weighted.text)]
    parts = [weighted.part(start, end) for start, end in zip(starts, ends, strict=True)]
    for part in parts[:-1]:
        _check_class(part.text, prompt, trigger, "each trigger")
    return parts


def without_triggers(prompt: str, trigger: str = TRIGGER) -> str:
    """The words of a prompt without triggers and weight marks, for any number of people.

    Raises:
        PromptError: See `parse`.
    """
    text = _read(prompt, trigger).text
    ends = [0, *(edge for place in _places(text, trigger) for edge in place), len(text)]
    return " ".join(text[start:end].strip() for start, end in zip(ends[::2], ends[1::2], strict=True)).strip()


def _cut(prompt: str, trigger: str) -> ParsedPrompt:
    places = _places(prompt, trigger)
    if len(places) > 1:
        raise PromptError(
            f"the prompt {prompt!r} has the trigger word {trigger!r} {len(places)} times; "
            "keep one, after the class word of the person, or draw as many people together"
        )
    if not places:
        return _cut(insert_trigger(prompt, trigger), trigger)
    start, end = places[0]
    before, after = prompt[:start], prompt[end:]
    _check_class(before, prompt, trigger, "the trigger")
    return ParsedPrompt(before, after, trigger)


def _check_class(before: str, prompt: str, trigger: str, which: str) -> None:
    """Refuse a trigger that does not directly follow a word."""
    if re.search(r"\w\s*$", before):
        return
    parted = _PARTED.search(before)
    if parted is not None:
        raise PromptError(
            f"the bracket {parted['bracket']!r} parts the class word from the trigger {trigger!r} in {prompt!r} and "
            f"is not emphasis; remove it, or write '(man) {trigger}' with a bracket on either side"
        )
    raise PromptError(
        f"there is no class word before {which} {trigger!r} in {prompt!r}; "
        f"write one right before it, such as 'a man {trigger}' ({_EXAMPLES})"
    )


def with_person(prompt: str, words: Callable[[str], str], trigger: str = TRIGGER) -> str:
    """Replace class word and trigger of a prompt with other words for the person.

    Args:
        prompt: With or without trigger; prompt weights are read and left out.
        words: What stands for the person, given the class word; `"sks {}".format` gives "a photo of a sks man".
        trigger: The trigger word.

    Raises:
        PromptError: See `parse`.
    """
    parsed = parse(prompt, trigger)
    before = parsed.before.rstrip()
    return f"{before[: -len(parsed.class_word)]}{words(parsed.class_word)}{parsed.after}"


def insert_trigger(prompt: str, trigger: str = TRIGGER, people: int = 1) -> str:
    """Add a missing trigger after the first class word of a prompt.

    Brackets that close right behind the class word are taken for its own: "((man)) in the snow" is "((man)) img in the
    snow". For several people it is put behind as many class words, if there are just as many.

    Raises:
        PromptError: The prompt has neither trigger nor class word, or not one for each of several people.
    """
    if _places(prompt, trigger):
        return prompt
    found = list(re.finditer(rf"\b({'|'.join(CLASS_WORDS)})\b[)\]]*", prompt, flags=re.IGNORECASE))
    if people > 1 and len(found) != people:
        raise PromptError(
            f"the prompt {prompt!r} has {len(found)} class words for {people} people; put {trigger!r} after the class "
            f"word of each, such as 'a man {trigger} and a woman {trigger}'"
        )
    if not found:
        raise PromptError(
            f"the prompt {prompt!r} has no class word for the person; name one, such as {_EXAMPLES}, "
            f"or put {trigger!r} after the word that stands for the person"
        )
    for one in reversed(found[:people]):
        prompt = f"{prompt[: one.end()]} {trigger}{prompt[one.end() :]}"
    return prompt


def _places(prompt: str, trigger: str) -> list[tuple[int, int]]:
    word = rf"(?<!\w){re.escape(trigger)}(?!\w)"
    for pattern, flags in ((word, 0), (re.escape(trigger), 0), (word, re.IGNORECASE)):
        found = [match.span() for match in re.finditer(pattern, prompt, flags=flags)]
        if found:
            return found
    return []
