"""Expanded prompts through the two SDXL text encoders, for a batch of rows with different numbers of photos."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from photomaker.prompts.expand import ExpandedPrompt, Tokenizer, expand
from photomaker.prompts.trigger import TRIGGER, parse

if TYPE_CHECKING:
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

Convert = Callable[[str, Tokenizer], str]
Rows = tuple[list[ExpandedPrompt], list[ExpandedPrompt]]


@dataclass(frozen=True)
class EncodedPrompts:
    """A batch of expanded prompts behind the text encoders.

    Attributes:
        embeds: [batch, length, D], both encoders' features side by side.
        pooled: [batch, P], the second encoder's pooled features of the expanded prompt.
        class_tokens: Bool [batch, length], true at the class tokens of the first encoder's sequence.
        class_tokens_2: The same for the second encoder; differs only where it got another text.
    """

    embeds: Tensor
    pooled: Tensor
    class_tokens: Tensor
    class_tokens_2: Tensor


def encode(
    prompts: Sequence[str],
    copies: Sequence[int],
    tokenizers: tuple[Tokenizer, Tokenizer],
    text_encoders: tuple[CLIPTextModel, CLIPTextModelWithProjection],
    clip_skip: int | None = None,
    device: torch.device | str | None = None,
) -> EncodedPrompts:
    """Expand and encode prompts, both encoders reading the same text; see `expand_rows` and `encode_rows`.

    Raises:
        PromptError: See `parse` and `expand`; raised before any encoder runs.
    """
    return encode_rows(expand_rows(prompts, copies, tokenizers), text_encoders, clip_skip, device)


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
    embeds, pooled = [], None
    for own, encoder in zip(rows, text_encoders, strict=True):
        ids = torch.tensor([row.ids for row in own], device=device or encoder.device)
        output = encoder(ids, output_hidden_states=True)
        embeds.append(output.hidden_states[-2 if clip_skip is None else -(clip_skip + 2)])
        pooled = output[0]
    assert pooled is not None
    masks = [torch.tensor([row.class_tokens for row in own], device=pooled.device) for own in rows]
    return EncodedPrompts(torch.cat(embeds, dim=-1), pooled, masks[0], masks[1])


def expand_rows(
    prompts: Sequence[str],
    copies: Sequence[int],
    tokenizers: tuple[Tokenizer, Tokenizer],
    prompts_2: Sequence[str] | None = None,
    trigger: str = TRIGGER,
    cut_first: bool = False,
    convert: Convert | None = None,
) -> Rows:
    """Expand prompts for the first and for the second text encoder.

    Args:
        prompts: One text per row, with or without trigger.
        copies: Per row, photos times the tokens that each takes.
        tokenizers: Both tokenizers; they are not changed.
        prompts_2: Other texts for the second encoder; None gives it the same.
        trigger: The trigger word.
        cut_first: See `expand`.
        convert: Replaces names of textual inversions by their tokens.

    Returns:
        Rows for the first and rows for the second encoder.

    Raises:
        PromptError: See `parse` and `expand`.
    """
    both = []
    for texts, tokenizer in zip((prompts, prompts_2 or prompts), tokenizers, strict=True):
        own = None if convert is None else lambda text, tokenizer=tokenizer: convert(text, tokenizer)
        parsed = [parse(text, trigger) for text in texts]
        both.append(
            [
                expand(row, tokenizer, count, trigger, cut_first, own)
                for row, count in zip(parsed, copies, strict=True)
            ]
        )
    return both[0], both[1]
