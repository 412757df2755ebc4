"""Encodes expanded prompts with SDXL's two text encoders, in batches with different numbers of photos."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from photomaker.prompts.expand import ExpandedPrompt, Tokenizer, expand, expand_plain, expand_subjects
from photomaker.prompts.trigger import TRIGGER, ParsedPrompt, parse

if TYPE_CHECKING:
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

Convert = Callable[[str, Tokenizer], str]
Rows = tuple[list[ExpandedPrompt], list[ExpandedPrompt]]
Copies = int | tuple[int, ...]
"""Class tokens of a row's person, or of each of its people."""


@dataclass(frozen=True)
class EncodedPrompts:
    """A batch of encoded prompts.

    Attributes:
        embeds: [batch, length, D], both encoders' features side by side.
        pooled: [batch, P], the second encoder's pooled features of the expanded prompt.
        class_tokens: Bool [batch, length], true at the class tokens of the first encoder's sequence.
        class_tokens_2: The same for the second encoder; differs only where it got another text.
        weights: Prompt weights [batch, length, D], None if all are 1.
    """

    embeds: Tensor
    pooled: Tensor
    class_tokens: Tensor
    class_tokens_2: Tensor
    weights: Tensor | None = None


def encode(
    prompts: Sequence[str | ParsedPrompt],
    copies: Sequence[Copies],
    tokenizers: tuple[Tokenizer, Tokenizer],
    text_encoders: tuple[CLIPTextModel, CLIPTextModelWithProjection],
    clip_skip: int | None = None,
    device: torch.device | str | None = None,
) -> EncodedPrompts:
    """Expand and encode prompts, with the same text for both encoders; see `expand` and `encode_rows`.

    A prompt may have been cut at its trigger already, as the captions of a dataset are, in which nothing else may be
    taken for a trigger or a weight. One of several people is a text, with as many numbers of copies.

    Raises:
        PromptError: See `parse` and `expand`; raised before any encoder runs.
    """
    first, second = (
        [
            expand(prompt, tokenizer, count)
            if isinstance(count, int)
            else expand_subjects(str(prompt), tokenizer, count)
            for prompt, count in zip(prompts, copies, strict=True)
        ]
        for tokenizer in tokenizers
    )
    return encode_rows(lengthened((first, second), tokenizers), text_encoders, clip_skip, device)


def encode_rows(
    rows: Rows,
    text_encoders: tuple[CLIPTextModel, CLIPTextModelWithProjection],
    clip_skip: int | None = None,
    device: torch.device | str | None = None,
) -> EncodedPrompts:
    """Run both text encoders over expanded prompts.

    Args:
        rows: From `expand_rows`.
        text_encoders: Both text encoders.
        clip_skip: Layers of the text encoders to leave out besides the last, as in diffusers.
        device: Where the ids go; None takes the encoders' own.

    Returns:
        Penultimate hidden states of both, side by side, and the second one's pooled features.
    """
    chunk = rows[0][0].chunk
    embeds, pooled = [], None
    for own, encoder in zip(rows, text_encoders, strict=True):
        ids = torch.tensor([row.ids for row in own], device=device or encoder.device)
        output = encoder(ids.view(-1, chunk), output_hidden_states=True)
        hidden = output.hidden_states[-2 if clip_skip is None else -(clip_skip + 2)]
        embeds.append(hidden.reshape(*ids.shape, -1))
        pooled = output[0]
    assert pooled is not None
    # of a long prompt, the pooled features are those of its first chunk
    first = pooled[:: len(rows[0][0].ids) // chunk]
    return marked(rows, torch.cat(embeds, dim=-1), embeds[0].shape[-1], first)


class TextEncoders(Protocol):
    """The two text encoders of an SDXL model, from any library."""

    @property
    def tokenizers(self) -> tuple[Tokenizer, Tokenizer]:
        """Both tokenizers."""

    def encode(self, ids: Sequence[int], ids_2: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Features of a text.

        Args:
            ids: Of the first tokenizer, in chunks of `model_max_length` behind one another.
            ids_2: As many of the second tokenizer.

        Returns:
            Penultimate hidden states of both encoders, side by side, chunk behind chunk [1, length, D]; and the second
            one's pooled features of the first chunk [1, P].
        """


def encode_by(rows: Rows, texts: TextEncoders, cut: int) -> EncodedPrompts:
    """Run text encoders from any library over expanded prompts.

    Args:
        rows: From `expand_rows`.
        texts: Both text encoders.
        cut: Width of the first one's features, which come first.
    """
    each = [texts.encode(first.ids, second.ids) for first, second in zip(*rows, strict=True)]
    return marked(rows, torch.cat([one for one, _ in each]), cut, torch.cat([pooled for _, pooled in each]))


def marked(rows: Rows, embeds: Tensor, cut: int, pooled: Tensor) -> EncodedPrompts:
    """Features with what is known of their tokens.

    Args:
        rows: From `expand_rows`.
        embeds: Features of both encoders, side by side [batch, length, D].
        cut: Width of the first one's.
        pooled: [batch, P].
    """
    masks = [torch.tensor([row.class_tokens for row in own], device=pooled.device) for own in rows]
    weights = None
    if any(row.is_weighted for own in rows for row in own):
        each = [torch.tensor([row.weights for row in own], device=pooled.device) for own in rows]
        parts = (embeds[..., :cut], embeds[..., cut:])
        weights = torch.cat(
            [one[..., None].expand_as(part) for one, part in zip(each, parts, strict=True)], dim=-1
        )
    return EncodedPrompts(embeds, pooled, masks[0], masks[1], weights)


def weighed(embeds: Tensor, weights: Tensor | None, empty: Tensor) -> Tensor:
    """Apply prompt weights: an embedding is moved away from, or towards, the empty prompt's at the same position.

    Args:
        embeds: [batch, length, D].
        weights: The same shape; None leaves everything as it is.
        empty: Embeddings of the empty prompt [1, chunk, D]; length is a multiple of chunk.

    Returns:
        [batch, length, D]; where the weight is 1, `embeds` bit for bit.
    """
    if weights is None:
        return embeds
    nothing = empty.to(embeds).repeat(1, embeds.shape[1] // empty.shape[1], 1)
    moved = nothing + weights.to(embeds) * (embeds - nothing)
    return torch.where(weights.to(embeds.device) == 1, embeds, moved)


def expand_rows(
    prompts: Sequence[str],
    copies: Sequence[Copies] | None,
    tokenizers: tuple[Tokenizer, Tokenizer],
    prompts_2: Sequence[str] | None = None,
    trigger: str = TRIGGER,
    cut_first: bool = False,
    convert: Convert | None = None,
    long: bool = False,
) -> Rows:
    """Expand prompts for the first and for the second text encoder.

    Args:
        prompts: One text per row, with or without trigger.
        copies: Per row, photos times the tokens that each takes, for several people a number each. None reads texts
            without a person, such as negative prompts.
        tokenizers: Both tokenizers; they are not changed.
        prompts_2: Other texts for the second encoder; None gives it the same.
        trigger: The trigger word.
        cut_first: See `expand`.
        convert: Replaces names of textual inversions by their tokens.
        long: See `expand`; all rows get the length of the longest.

    Returns:
        Rows for the first and rows for the second encoder.

    Raises:
        PromptError: See `parse` and `expand`.
    """
    both = []
    for texts, tokenizer in zip((prompts, prompts_2 or prompts), tokenizers, strict=True):
        own = None if convert is None else lambda text, tokenizer=tokenizer: convert(text, tokenizer)
        if copies is None:
            both.append([expand_plain(text, tokenizer, own, long) for text in texts])
            continue
        both.append(
            [
                expand(parse(text, trigger), tokenizer, count, trigger, cut_first, own, long)
                if isinstance(count, int)
                else expand_subjects(text, tokenizer, count, trigger, own)
                for text, count in zip(texts, copies, strict=True)
            ]
        )
    return lengthened((both[0], both[1]), tokenizers)


def lengthened(rows: Rows, tokenizers: tuple[Tokenizer, Tokenizer], length: int = 0) -> Rows:
    """Bring rows to one length, that of the longest or `length`, by empty chunks."""
    most = max([length, *(len(row.ids) for own in rows for row in own)])
    first, second = (
        [row.lengthened(tokenizer, most) for row in own]
        for own, tokenizer in zip(rows, tokenizers, strict=True)
    )
    return first, second
