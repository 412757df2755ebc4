"""What a call of the pipeline says in words or embeddings, checked and brought to one row for each picture."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from photomaker.encoders import PhotoMakerIDEncoder, photos_of_each
from photomaker.errors import PromptError, SettingsError
from photomaker.pipelines.attention.regions import Place, RegionalAttention
from photomaker.pipelines.steps.merging import Conditioning
from photomaker.prompts import Copies, EncodedPrompts, Rows
from photomaker.types import Identity

WITH_EMBEDDINGS = ("class_tokens_mask", "class_tokens_mask_2", "class_token_weights")


TEXT_ONLY = ("prompt_embeds_text_only", "pooled_prompt_embeds_text_only")


def check_texts(kwargs: Mapping[str, Any], embeddings: Mapping[str, Tensor | None]) -> None:
    """Refuse arguments that need prompt embeddings if there are none; they would be ignored."""
    more = {"pooled_prompt_embeds": kwargs.get("pooled_prompt_embeds")} | {
        name: embeddings[name] for name in WITH_EMBEDDINGS
    }
    for name, value in more.items():
        if value is not None:
            raise PromptError(f"{name} is given without prompt_embeds; give both, or leave it out")


def with_text_only(plain: EncodedPrompts, embeds: Tensor | None, pooled: Tensor | None) -> EncodedPrompts:
    """Prompts of the steps before merging, from the caller's embeddings if given."""
    for name, own, given in zip(TEXT_ONLY, (plain.embeds, plain.pooled), (embeds, pooled), strict=True):
        if given is not None and given.shape != own.shape:
            raise PromptError(
                f"{name} have shape {tuple(given.shape)}, but the prompt takes {tuple(own.shape)}; encode_prompts "
                "makes them fit"
            )
    return replace(
        plain,
        embeds=plain.embeds if embeds is None else embeds.to(plain.embeds),
        pooled=plain.pooled if pooled is None else pooled.to(plain.pooled),
    )


def given_embeddings(
    texts: Sequence[object], kwargs: Mapping[str, Any], more: Mapping[str, Tensor | None]
) -> tuple[EncodedPrompts, EncodedPrompts]:
    """The prompt embeddings of a call, of the steps after merging and of those before."""
    embeds, pooled, mask = (
        kwargs["prompt_embeds"],
        kwargs.get("pooled_prompt_embeds"),
        more["class_tokens_mask"],
    )
    for name, text in zip(("prompt", "prompt_2"), texts, strict=True):
        if text is not None:
            raise PromptError(f"both {name} and prompt_embeds are given; leave one out")
    if pooled is None or mask is None:
        raise PromptError(
            "prompt_embeds come with pooled_prompt_embeds and class_tokens_mask; encode_prompts makes all of them"
        )
    mask_2 = more["class_tokens_mask_2"]
    masks = [mask, mask if mask_2 is None else mask_2]
    wanted = {tuple(one.shape[:2]) for one in (embeds, *masks)}
    if len(wanted) > 1:
        raise PromptError(
            f"prompt_embeds have shape {tuple(embeds.shape)}, class_tokens_mask {tuple(mask.shape)}; encode_prompts "
            "makes them fit"
        )
    weights = more["class_token_weights"]
    if weights is not None and weights.shape != embeds.shape:
        raise PromptError(
            f"class_token_weights have shape {tuple(weights.shape)} and prompt_embeds {tuple(embeds.shape)}; "
            "encode_prompts makes them fit"
        )
    merged = EncodedPrompts(embeds, pooled, masks[0].bool(), masks[1].bool(), weights)
    return merged, with_text_only(replace(merged, weights=None), *(more[name] for name in TEXT_ONLY))


def weights_apart(encoded: EncodedPrompts, cut: int) -> tuple[Tensor | None, Tensor | None]:
    """Prompt weights of everything but the class token, and of the class token alone; `cut` parts the encoders."""
    weights = encoded.weights
    if weights is None:
        return None, None
    first, second = encoded.class_tokens[..., None], encoded.class_tokens_2[..., None]
    place = torch.arange(weights.shape[-1], device=weights.device) < cut
    classes = torch.where(place, first, second)
    ones = torch.ones_like(weights)
    return torch.where(classes, ones, weights), torch.where(classes, weights, ones)


def several_copies(given: object, rows: int) -> list[Copies]:
    """One class token for each person of each row, if pictures show several people; otherwise empty."""
    listed = (
        [given] if isinstance(given, Identity) else list(given) if isinstance(given, list | tuple) else []
    )
    counts = {
        len(photos_of_each(one)) if "subjects" in one.tensors else 1
        for one in listed
        if isinstance(one, Identity) and "id_features" in one.tensors
    }
    if len(counts) > 1:
        raise SettingsError(
            "the identities of the call have different numbers of people; draw them in separate calls"
        )
    people = counts.pop() if counts else 1
    return [(1,) * people] * rows if people > 1 else []


def subjects_of(rows: Rows, copies: Sequence[Copies]) -> Tensor:
    """Positions of the class tokens by person in the first encoder's sequence: bool [rows, people, length]."""
    made = []
    for row, counts in zip(rows[0], copies, strict=True):
        assert isinstance(counts, tuple)
        marked = torch.tensor(row.class_tokens)
        order = marked.cumsum(0) - 1
        ends = torch.tensor(counts).cumsum(0)
        whose = torch.bucketize(order, ends, right=True)
        made.append(torch.stack([marked & (whose == person) for person in range(len(counts))]))
    return torch.stack(made)


def regional_attention(
    conditioning: Conditioning, layout: Sequence[Place] | None
) -> RegionalAttention | None:
    """How people share a picture's places; None where there is one person.

    Raises:
        SettingsError: A layout is given for one person.
    """
    if conditioning.subjects is None:
        if layout is not None:
            raise SettingsError(
                "a layout is for several people, but the pictures show one; leave it out, or put "
                "identities together"
            )
        return None
    return RegionalAttention(conditioning.subjects, layout)


def check_masks(encoded: EncodedPrompts, copies: Sequence[Copies]) -> None:
    """Refuse masks of class tokens that do not mark as many as the photos take.

    Raises:
        PromptError: One does not.
    """
    marked = encoded.class_tokens.sum(1).tolist()
    for number, (wanted, given) in enumerate(zip(copies, marked, strict=True), start=1):
        if wanted not in (0, given):
            raise PromptError(
                f"class_tokens_mask marks {given} tokens in row {number}, but the photos take {wanted}; "
                "encode the prompt for as many photos as are given"
            )


def both_rows(
    prompt: str | Sequence[str] | None, prompt_2: str | Sequence[str] | None
) -> tuple[list[str], list[str] | None]:
    """The prompts of both text encoders as lists.

    Raises:
        PromptError: There is none, or they are of different numbers.
    """
    prompts = _rows(prompt, "prompt")
    prompts_2 = None if prompt_2 is None else _rows(prompt_2, "prompt_2")
    if prompts_2 is not None and len(prompts_2) != len(prompts):
        raise PromptError(
            f"there are {len(prompts_2)} prompts in prompt_2 and {len(prompts)} in prompt; give equal numbers"
        )
    return prompts, prompts_2


def negative_prompts(kwargs: Mapping[str, Any], rows: int) -> tuple[list[str], list[str] | None] | None:
    """The negative prompts for each row, for both text encoders; None without."""
    both: list[list[str] | None] = []
    for name in ("negative_prompt", "negative_prompt_2"):
        given = kwargs.get(name)
        if given is not None and kwargs.get("negative_prompt_embeds") is not None:
            raise PromptError(f"both {name} and negative_prompt_embeds are given; leave one out")
        texts = None if given is None else [given] * rows if isinstance(given, str) else _rows(given, name)
        if texts is not None and len(texts) != rows:
            raise PromptError(
                f"there are {len(texts)} texts in {name} for {rows} prompts; give one, or as many"
            )
        both.append(texts)
    if both[0] is None and both[1] is None:
        return None
    return both[0] or [""] * rows, both[1]


def are_weighted(rows: Rows | None) -> bool:
    """Whether a prompt has weights."""
    return rows is not None and any(row.is_weighted for own in rows for row in own)


def tell_lost(rows: Rows) -> None:
    """Warn of what the encoders cannot read any more."""
    for number, row in enumerate(rows[0], start=1):
        if row.lost.strip():
            warnings.warn(
                f"prompt {number} is too long, {row.lost.strip()!r} is not read; long_prompt=True reads all of it",
                stacklevel=3,
            )


def _rows(prompt: str | Sequence[str] | None, name: str) -> list[str]:
    if isinstance(prompt, str):
        return [prompt]
    if not prompt or not all(isinstance(row, str) for row in prompt):
        raise PromptError(f"{name} is {prompt!r}; give a text or a list of texts")
    return list(prompt)


def as_lists(kwargs: Mapping[str, Any], rows: int) -> dict[str, Any]:
    """The text arguments other than the prompt, one for each row, because the prompt is passed on as a list."""
    names = ("negative_prompt", "negative_prompt_2")
    return {name: [kwargs[name]] * rows for name in names if isinstance(kwargs.get(name), str)}


def check_slots(rows: Rows, copies: Sequence[Copies], encoder: PhotoMakerIDEncoder) -> None:
    """Refuse prompts with less room than their photos take.

    Raises:
        PromptError: One has less.
    """
    wholes = [one if isinstance(one, int) else sum(one) for one in copies]
    for number, (wanted, first, second) in enumerate(zip(wholes, *rows, strict=True), start=1):
        room = min(first.slots, second.slots)
        if wanted == room:
            continue
        sentence = (
            f"the photos take {wanted} tokens, but only {room} fit after the class word of prompt {number}; "
            "move the class word forward or give fewer photos"
        )
        # the first official release leaves photos out, which works; where the encoders' halves differ it cannot
        if encoder.version != "v1" or first.slots != second.slots:
            raise PromptError(sentence)
        warnings.warn(f"{sentence}; the last photos are left out", stacklevel=4)
