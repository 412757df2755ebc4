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


@dataclass(frozen=True)
class EncodedPrompts:
    """A batch of expanded prompts behind the text encoders.

    Attributes:
        embeds: [batch, length, D], both encoders' features side by side.
        pooled: [batch, P], the second encoder's pooled features of the expanded prompt.
        class_tokens: Bool [batch, length], true at the class tokens of the first encoder's sequence.
        class_tokens_2: The same for the second encoder; differs only where it got another text.
        text_only: The prompts without trigger.
        text_only_2: The second encoder's prompts without trigger.
    """

    embeds: Tensor
    pooled: Tensor
    class_tokens: Tensor
    class_tokens_2: Tensor
    text_only: tuple[str, ...]
    text_only_2: tuple[str, ...]


def encode(
    prompts: Sequence[str],
    copies: Sequence[int],
    tokenizers: tuple[Tokenizer, Tokenizer],
    text_encoders: tuple[CLIPTextModel, CLIPTextModelWithProjection],
    prompts_2: Sequence[str] | None = None,
    trigger: str = TRIGGER,
    cut_first: bool = False,
    clip_skip: int | None = None,
    device: torch.device | str | None = None,
    convert: Convert | None = None,
) -> EncodedPrompts:
    """Expand and encode prompts.

    Args:
        prompts: One text per row, with or without trigger.
        copies: Per row, photos times the tokens that each takes.
        tokenizers: Both tokenizers; they are not changed.
        text_encoders: Both text encoders.
        prompts_2: Other texts for the second encoder; None gives it the same.
        trigger: The trigger word.
        cut_first: See `expand`.
        clip_skip: Layers of the text encoders to leave out besides the last, as in diffusers.
        device: Where the ids go; None takes the encoders' own.
        convert: Replaces names of textual inversions by their tokens.

    Raises:
        PromptError: See `parse` and `expand`; raised before any encoder runs.
    """
    expanded = expand_rows(prompts, copies, tokenizers, prompts_2, trigger, cut_first, convert)
    embeds, pooled = [], None
    for rows, encoder in zip(expanded, text_encoders, strict=True):
        ids = torch.tensor([row.ids for row in rows], device=device or encoder.device)
        output = encoder(ids, output_hidden_states=True)
        embeds.append(output.hidden_states[-2 if clip_skip is None else -(clip_skip + 2)])
        pooled = output[0]
    assert pooled is not None
    masks = [torch.tensor([row.class_tokens for row in rows], device=pooled.device) for rows in expanded]
    text = [tuple(row.text_only for row in rows) for rows in expanded]
    return EncodedPrompts(torch.cat(embeds, dim=-1), pooled, masks[0], masks[1], text[0], text[1])


def expand_rows(
    prompts: Sequence[str],
    copies: Sequence[int],
    tokenizers: tuple[Tokenizer, Tokenizer],
    prompts_2: Sequence[str] | None = None,
    trigger: str = TRIGGER,
    cut_first: bool = False,
    convert: Convert | None = None,
) -> tuple[list[ExpandedPrompt], list[ExpandedPrompt]]:
    """The text half of `encode`: rows for the first and for the second text encoder.

    The text-only prompt of a text that both encoders read is the first tokenizer's.

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
