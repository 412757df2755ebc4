"""Token ids with the class token repeated once per photo, and the text-only prompt, for one tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from photomaker.errors import PromptError
from photomaker.prompts.trigger import TRIGGER, ParsedPrompt, parse


class Tokenizer(Protocol):
    """What is needed of a CLIP tokenizer."""

    model_max_length: int
    bos_token_id: int
    eos_token_id: int
    pad_token_id: int

    def __call__(self, text: str, add_special_tokens: bool) -> dict[str, list[int]]:
        """Token ids of a text."""

    def decode(self, ids: list[int]) -> str:
        """Text of token ids."""


@dataclass(frozen=True)
class ExpandedPrompt:
    """A prompt as ids, ready for one text encoder.

    Attributes:
        ids: `model_max_length` token ids.
        class_tokens: As many booleans, true at the copies of the class token.
        text_only: The prompt without its trigger, as the tokenizer reads it back (the text of the phase before
            merging).
    """

    ids: tuple[int, ...]
    class_tokens: tuple[bool, ...]
    text_only: str

    @property
    def slots(self) -> int:
        """Number of class tokens that lie inside the length limit."""
        return sum(self.class_tokens)


def expand(
    prompt: str | ParsedPrompt,
    tokenizer: Tokenizer,
    copies: int,
    trigger: str = TRIGGER,
    cut_first: bool = False,
    convert: Callable[[str], str] | None = None,
) -> ExpandedPrompt:
    """Repeat the class token, the last token before the trigger, `copies` times.

    Ids past the length limit fall off, the end mark included, as in the official code; nothing is put back.

    Args:
        prompt: With or without trigger; see `parse`.
        tokenizer: A CLIP tokenizer; it is not changed.
        copies: Photos times the tokens that each takes, at least 1.
        trigger: The trigger word.
        cut_first: Whether a text longer than the limit is cut (and ended) before the class token is repeated, as the
            second official release does; the first one cut only afterwards.
        convert: Replaces names of textual inversions by their tokens.

    Raises:
        PromptError: See `parse`; or the class word lies past the length limit.
    """
    parsed = parse(prompt, trigger) if isinstance(prompt, str) else prompt
    convert = convert or _unchanged
    before = _ids(tokenizer, convert(parsed.before))
    after = _ids(tokenizer, convert(parsed.after))
    limit = tokenizer.model_max_length
    text_only = tokenizer.decode(before + after)
    # the begin mark counts against the limit; where the text is cut first, trigger and end mark do so too
    room = limit - (3 if cut_first else 1)
    if len(before) > room:
        raise PromptError(
            f"the class word {parsed.class_word!r} is token {len(before)} of the prompt and only {room} can be read; "
            "move it forward or shorten the prompt"
        )
    if cut_first:
        after = after[: room - len(before)]
    head = [tokenizer.bos_token_id, *before[:-1]]
    ids = [*head, *before[-1:] * copies, *after, tokenizer.eos_token_id]
    ids = (ids + [tokenizer.pad_token_id] * limit)[:limit]
    class_tokens = tuple(len(head) <= place < len(head) + copies for place in range(limit))
    return ExpandedPrompt(tuple(ids), class_tokens, text_only)


def _unchanged(text: str) -> str:
    return text


def _ids(tokenizer: Tokenizer, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"]) if text.strip() else []
