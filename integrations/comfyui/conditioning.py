"""A prompt with and without a person as ComfyUI's CONDITIONING, divided by the share of the steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from photomaker import PromptEmbeddings

    Conditioning = list[list[Any]]

NUDGE = 5e-5
"""A step exactly at the merge point belongs to the person, so the point is moved this much earlier."""


def parted(prompt: PromptEmbeddings, merge: float, options: dict[str, Any] | None = None) -> Conditioning:
    """The text-only prompt up to the merge point and the person's from there on.

    Both parts meet at one point, so that every step has exactly one of them.

    Args:
        prompt: With and without the person.
        merge: Share of the timesteps, 0..1, that stay text-only.
        options: Further entries of both parts.
    """
    if merge <= 0:
        return one(prompt.embeds, prompt.pooled, options)
    if merge >= 1:
        return text_only(prompt, options)
    point = merge - min(NUDGE, merge / 2)
    before, after = {"start_percent": 0.0, "end_percent": point}, {"start_percent": point, "end_percent": 1.0}
    return [
        *one(prompt.text_only_embeds, prompt.text_only_pooled, {**(options or {}), **before}),
        *one(prompt.embeds, prompt.pooled, {**(options or {}), **after}),
    ]


def text_only(prompt: PromptEmbeddings, options: dict[str, Any] | None = None) -> Conditioning:
    """The prompt without the person, at every step."""
    return one(prompt.text_only_embeds, prompt.text_only_pooled, options)


def one(embeds: Tensor, pooled: Tensor, options: dict[str, Any] | None = None) -> Conditioning:
    """One entry of a CONDITIONING."""
    return [[embeds, {"pooled_output": pooled, **(options or {})}]]
