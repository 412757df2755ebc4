"""Token ids with the class token repeated once per photo, and the text-only prompt, for one tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from photomaker.errors import PromptError
from photomaker.prompts.trigger import TRIGGER, ParsedPrompt, parse, parse_subjects
from photomaker.prompts.weights import WeightedText, read_weights

Tokens = list[tuple[int, float]]
Convert = Callable[[str], str]
_WORD_END = "</w>"


class Tokenizer(Protocol):
    """The required interface of a CLIP tokenizer."""

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
    """A prompt as ids, ready for one text encoder, in one chunk of `model_max_length` ids or, if long, in several.

    Attributes:
        ids: Token ids, chunk after chunk.
        class_tokens: As many booleans, true at the copies of the class token.
        weights: As many prompt weights.
        text_only: The prompt without its trigger, as the tokenizer reads it back (the text of the phase before
            merging).
        lost: The end of the text that did not fit.
        chunk: Ids of a chunk.
    """

    ids: tuple[int, ...]
    class_tokens: tuple[bool, ...]
    weights: tuple[float, ...]
    text_only: str
    lost: str = ""
    chunk: int = 77

    @property
    def slots(self) -> int:
        """Number of class tokens that lie inside the length limit."""
        return sum(self.class_tokens)

    @property
    def is_weighted(self) -> bool:
        """Whether a weight differs from 1."""
        return any(weight != 1 for weight in self.weights)

    def lengthened(self, tokenizer: Tokenizer, length: int) -> ExpandedPrompt:
        """The same with empty chunks behind it, up to `length` ids."""
        more = (length - len(self.ids)) // tokenizer.model_max_length
        return replace(
            self,
            ids=self.ids + _chunk(tokenizer, []) * more,
            class_tokens=self.class_tokens + (False,) * (length - len(self.ids)),
            weights=self.weights + (1.0,) * (length - len(self.ids)),
        )


def expand(
    prompt: str | ParsedPrompt,
    tokenizer: Tokenizer,
    copies: int,
    trigger: str = TRIGGER,
    cut_first: bool = False,
    convert: Convert | None = None,
    long: bool = False,
) -> ExpandedPrompt:
    """Repeat the class token, the last token before the trigger, `copies` times.

    Ids past the length limit are dropped, including the end token, as in the official code.

    Args:
        prompt: With or without trigger; see `parse`.
        tokenizer: A CLIP tokenizer; it is not changed.
        copies: Photos times the tokens that each takes, at least 1.
        trigger: The trigger word.
        cut_first: Whether a text longer than the limit is cut (and ended) before the class token is repeated, as the
            second official release does; the first one cut only afterwards.
        convert: Replaces names of textual inversions by their tokens.
        long: Whether a text longer than the limit continues in further chunks, each with its own begin and end mark, so
            that nothing is lost; the copies of the class token stay together in one chunk if they fit.

    Raises:
        PromptError: See `parse`; or the class word lies past the length limit.
    """
    parsed = parse(prompt, trigger) if isinstance(prompt, str) else prompt
    before, after = (_tokens(tokenizer, part, convert or _unchanged) for part in parsed.weighted)
    text_only = _decoded(tokenizer, [token for token, _ in before + after])
    head, group = before[:-1], before[-1:] * copies
    limit = tokenizer.model_max_length
    if long:
        return _chunked(tokenizer, [*_units(head), *_group(group, tokenizer), *_units(after)], text_only)
    # the start token counts towards the limit; if the text is cut first, trigger and end token do so too
    room = limit - (3 if cut_first else 1)
    if len(before) > room:
        raise PromptError(
            f"the class word {parsed.class_word!r} is token {len(before)} of the prompt, but only {room} can be read; "
            "move it forward or shorten the prompt"
        )
    kept = after[: room - len(before)] if cut_first else after
    inside = kept[: max(0, limit - 1 - len(head) - copies)]
    ids = [tokenizer.bos_token_id, *(token for token, _ in head + group + kept), tokenizer.eos_token_id]
    weights = [1.0, *(weight for _, weight in head + group + kept)]
    start = 1 + len(head)
    return ExpandedPrompt(
        tuple((ids + [tokenizer.pad_token_id] * limit)[:limit]),
        tuple(start <= place < start + copies for place in range(limit)),
        tuple((weights + [1.0] * limit)[:limit]),
        text_only,
        _decoded(tokenizer, [token for token, _ in after[len(inside) :]]),
        limit,
    )


def expand_plain(
    text: str, tokenizer: Tokenizer, convert: Convert | None = None, long: bool = False
) -> ExpandedPrompt:
    """A text without a person, such as a negative prompt, with its prompt weights; see `expand`.

    Raises:
        PromptError: A weight is out of range.
    """
    tokens = _tokens(tokenizer, read_weights(text), convert or _unchanged)
    said = _decoded(tokenizer, [token for token, _ in tokens])
    room = tokenizer.model_max_length - 2
    whole = _chunked(tokenizer, _units(tokens if long else tokens[:room]), said)
    lost = [] if long else tokens[room:]
    return replace(whole, lost=_decoded(tokenizer, [token for token, _ in lost]))


def expand_subjects(
    prompt: str,
    tokenizer: Tokenizer,
    copies: Sequence[int],
    trigger: str = TRIGGER,
    convert: Convert | None = None,
) -> ExpandedPrompt:
    """A prompt with several people, whose class tokens are marked and repeated for their photos.

    Args:
        prompt: With a trigger behind each class word, such as "a man img and a woman img"; for one person it may be
            missing, see `parse`.
        tokenizer: A CLIP tokenizer; it is not changed.
        copies: How often each person's class token stands, at least once: photos times the tokens that each takes.
        trigger: The trigger word.
        convert: See `expand`.

    Returns:
        The prompt in as many chunks as it takes, the class tokens of the first person before those of the second.

    Raises:
        PromptError: There are not as many triggers as people, or one has no class word before it.
    """
    cut = parse_subjects(prompt, len(copies), trigger)
    parts = [_tokens(tokenizer, part, convert or _unchanged) for part in cut]
    units: list[Unit] = []
    for part, count in zip(parts[:-1], copies, strict=True):
        units += [*_units(part[:-1]), *_group(part[-1:] * count, tokenizer)]
    units += _units(parts[-1])
    return _chunked(tokenizer, units, _decoded(tokenizer, [token for part in parts for token, _ in part]))


Unit = list[tuple[int, float, bool]]


def _units(tokens: Tokens) -> list[Unit]:
    """Tokens of the text, each on its own."""
    return [[(token, weight, False)] for token, weight in tokens]


def _group(tokens: Tokens, tokenizer: Tokenizer) -> list[Unit]:
    """Class tokens, which stay together in one chunk if they fit."""
    marked = [(token, weight, True) for token, weight in tokens]
    return [marked] if len(marked) <= tokenizer.model_max_length - 2 else [[one] for one in marked]


def _chunked(tokenizer: Tokenizer, units: list[Unit], text_only: str) -> ExpandedPrompt:
    room = tokenizer.model_max_length - 2
    chunks: list[Unit] = [[]]
    for unit in units:
        if len(chunks[-1]) + len(unit) > room:
            chunks.append([])
        chunks[-1].extend(unit)
    ids: list[int] = []
    classes: list[bool] = []
    weights: list[float] = []
    for chunk in chunks:
        behind = room + 1 - len(chunk)
        ids.extend(_chunk(tokenizer, [token for token, _, _ in chunk]))
        weights.extend([1.0, *(weight for _, weight, _ in chunk), *[1.0] * behind])
        classes.extend([False, *(is_class for _, _, is_class in chunk), *[False] * behind])
    return ExpandedPrompt(
        tuple(ids), tuple(classes), tuple(weights), text_only, chunk=tokenizer.model_max_length
    )


def _chunk(tokenizer: Tokenizer, ids: list[int]) -> tuple[int, ...]:
    """Between begin and end mark, padded to the length of a chunk."""
    marked = [tokenizer.bos_token_id, *ids, tokenizer.eos_token_id]
    return (*marked, *[tokenizer.pad_token_id] * (tokenizer.model_max_length - len(marked)))


def _decoded(tokenizer: Tokenizer, ids: list[int]) -> str:
    """Text of token ids.

    The CLIP tokenizer takes its marks of word ends out of the text by a function that copying and pickling lose.
    """
    return tokenizer.decode(ids).replace(_WORD_END, " ").strip()


def _unchanged(text: str) -> str:
    return text


def _tokens(tokenizer: Tokenizer, text: WeightedText, convert: Convert) -> Tokens:
    """Token ids with their weights; stretches of one weight are read apart, which changes nothing between words."""
    return [
        (token, weight)
        for run, weight in text.runs()
        if run.strip()
        for token in tokenizer(convert(run), add_special_tokens=False)["input_ids"]
    ]
