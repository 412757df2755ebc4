"""Requests to batches of one stock SDXL pipeline: what a request leaves open, texts, and the drawing itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from photomaker.pipelines.attention.projections import kept_projections
from photomaker.pipelines.attention.shortcuts import Sparing
from photomaker.pipelines.drawing.photos import Background
from photomaker.pipelines.steps.guidance import GuidanceInterval
from photomaker.pipelines.steps.merging import Conditioning, DelayedMerging, steps_of
from photomaker.pipelines.steps.schedulers import scheduler_for
from photomaker.pipelines.steps.watching import Watch, watched
from photomaker.prompts import EncodedPrompts, Rows, encode_rows, expand_rows, lengthened, weighed
from photomaker.types import Request, Sampling

# used where neither the request nor the adapter file says otherwise (official demo: style strength 20)
GUIDANCE, MERGE = 5.0, 0.2


@dataclass(frozen=True)
class Defaults:
    """What a request that leaves it open gets; an adapter file may bring its own.

    Attributes:
        guidance: Classifier-free guidance scale.
        merge: Share of the steps, 0..1, that use the text-only prompt.
        background: "keep" encodes photos as they are, "grey" the person cut out on mid grey, where a reference has a
            mask.
    """

    guidance: float = GUIDANCE
    merge: float = MERGE
    background: Background = "keep"

    @classmethod
    def noted(cls, config: Mapping[str, Any], merge: float = MERGE) -> Defaults:
        """Read them from the notes of an adapter file (key `defaults`); `merge` where it has none."""
        given = {
            name: value for name, value in config.get("defaults", {}).items() if name in cls.__annotations__
        }
        return cls(**({"merge": merge} | given))


# ---- photos


# ---- requests


def settled(sampling: Sampling, defaults: Defaults, pipeline: Any) -> Sampling:  # noqa: ANN401
    """The same with nothing left open."""
    size = pipeline.default_sample_size * pipeline.vae_scale_factor
    return replace(
        sampling,
        guidance=defaults.guidance if sampling.guidance is None else sampling.guidance,
        merge=defaults.merge if sampling.merge is None else sampling.merge,
        width=sampling.width or size,
        height=sampling.height or size,
    )


def in_batches(
    pipeline: Any,  # noqa: ANN401 - any stock SDXL pipeline
    requests: Sequence[Request],
    most: int,
    draw: Callable[[list[Request]], Sequence[Image.Image]],
    watch: Watch | None = None,
) -> list[Image.Image]:
    """Draw requests together that are alike in all but prompt and seed.

    Args:
        pipeline: What draws; scheduler and guidance are as the requests ask while a batch is drawn.
        requests: One for each picture, with nothing left open.
        most: Pictures of a batch.
        draw: Draws the requests of a batch.
        watch: Called with every step.

    Returns:
        Pictures in the order of the requests.
    """
    groups: dict[object, list[int]] = {}
    for place, request in enumerate(requests):
        alike = (replace(request.sampling, seed=0), request.negative_prompt is None, request.extras.alike)
        groups.setdefault(alike, []).append(place)
    pictures: dict[int, Image.Image] = {}
    for places in groups.values():
        for start in range(0, len(places), most):
            some = places[start : start + most]
            batch = [requests[place] for place in some]
            with as_asked(pipeline, batch[0].sampling, watch):
                pictures |= dict(zip(some, draw(batch), strict=True))
    return [pictures[place] for place in range(len(requests))]


@contextmanager
def as_asked(pipeline: Any, sampling: Sampling, watch: Watch | None = None) -> Iterator[None]:  # noqa: ANN401
    """Have a pipeline draw with the scheduler and the guidance that are asked for, during the context.

    Args:
        pipeline: Any stock SDXL pipeline.
        sampling: What is asked for.
        watch: Called with every step.

    Raises:
        SettingsError: The scheduler is unknown, or does not fit the base.
    """
    before = pipeline.scheduler
    # a scheduler holds the state of a run: a fresh one leaves nothing of it behind
    pipeline.scheduler = scheduler_for(before, sampling.scheduler)
    interval = GuidanceInterval(
        sampling.guidance_start if with_guidance(sampling) else 0.0,
        sampling.guidance_stop if with_guidance(sampling) else 1.0,
        lambda: steps_of(pipeline),
        pipeline.scheduler.order,
    )
    sparing = Sparing(sampling, lambda: steps_of(pipeline), pipeline.scheduler.order)
    try:
        with interval.attached(pipeline.unet), sparing.attached(pipeline.unet), watched(pipeline, watch):
            yield
    finally:
        pipeline.scheduler = before


def negatives_of(requests: Sequence[Request]) -> list[str] | None:
    """Negative prompts of requests that all have one, or none."""
    if requests[0].negative_prompt is None:
        return None
    return [request.negative_prompt or "" for request in requests]


def generators_of(requests: Sequence[Request]) -> list[torch.Generator]:
    """Each request's own randomness, so that a picture does not depend on its companions."""
    return [torch.Generator().manual_seed(request.sampling.seed) for request in requests]


def call_settings(requests: Sequence[Request]) -> dict[str, Any]:
    """What a stock pipeline's call is told of requests that are alike in all but prompt and seed."""
    sampling = requests[0].sampling
    return {
        "num_inference_steps": sampling.steps,
        "guidance_scale": sampling.guidance,
        "width": sampling.width,
        "height": sampling.height,
        "generator": generators_of(requests),
    }


def last_text_only_step(sampling: Sampling) -> int:
    """Index of the last step that the identity has no part in: its share of the steps, short of all of them."""
    assert sampling.merge is not None
    return min(round(sampling.merge * sampling.steps), sampling.steps - 1) - 1


def with_guidance(sampling: Sampling) -> bool:
    """Whether the UNet gets a negative row for each picture."""
    return sampling.guidance is not None and sampling.guidance > 1


# ---- texts


def encoded_rows(
    pipeline: Any,  # noqa: ANN401 - any SDXL pipeline
    rows: Rows,
    change: Callable[[EncodedPrompts], Tensor] | None = None,
) -> EncodedPrompts:
    """Expanded prompts through the text encoders.

    Args:
        pipeline: The pipeline.
        rows: From `photomaker.prompts`.
        change: Gives other embeddings in place of the encoded ones, before prompt weights are applied.
    """
    encoders = (pipeline.text_encoder, pipeline.text_encoder_2)
    encoded = encode_rows(rows, encoders, device=pipeline._execution_device)
    if change is not None:
        encoded = replace(encoded, embeds=change(encoded))
    if encoded.weights is None:
        return encoded
    nothing = expand_rows([""], None, (pipeline.tokenizer, pipeline.tokenizer_2))
    empty = encode_rows(nothing, encoders, device=pipeline._execution_device).embeds
    return replace(encoded, embeds=weighed(encoded.embeds, encoded.weights, empty))


def alike(pipeline: Any, rows: Rows, negatives: Sequence[str] | None) -> tuple[Rows, Rows | None]:  # noqa: ANN401
    """Prompts and negative prompts at one length; None if the negative condition is zeros."""
    tokenizers = (pipeline.tokenizer, pipeline.tokenizer_2)
    if negatives is None and getattr(pipeline.config, "force_zeros_for_empty_prompt", True):
        return rows, None
    texts = [""] * len(rows[0]) if negatives is None else negatives
    negative = expand_rows(texts, None, tokenizers, long=True)
    length = max(len(one[0][0].ids) for one in (rows, negative))
    return lengthened(rows, tokenizers, length), lengthened(negative, tokenizers, length)


def text_rows(pipeline: Any, requests: Sequence[Request], copies: int = 1) -> Rows:  # noqa: ANN401
    """The prompts without their trigger, and with the class token so many times; once is the prompt's text alone."""
    tokenizers = (pipeline.tokenizer, pipeline.tokenizer_2)
    return expand_rows([one.prompt for one in requests], [copies] * len(requests), tokenizers, long=True)


def encoded_pair(
    pipeline: Any,  # noqa: ANN401 - any SDXL pipeline
    rows: Rows,
    negative: Rows | None,
) -> tuple[EncodedPrompts, EncodedPrompts | None]:
    """Prompts and negative prompts, as `alike` gives them, through the text encoders."""
    plain = encoded_rows(pipeline, rows)
    return plain, None if negative is None else encoded_rows(pipeline, negative)


def encoded_texts(
    pipeline: Any,  # noqa: ANN401 - any SDXL pipeline
    requests: Sequence[Request],
) -> tuple[EncodedPrompts, EncodedPrompts | None]:
    """The prompts of requests without a person, and the negative ones; None where these are zeros."""
    rows, negative = alike(pipeline, text_rows(pipeline, requests), negatives_of(requests))
    return encoded_pair(pipeline, rows, negative)


@torch.no_grad()
def draw(
    pipeline: Any,  # noqa: ANN401 - any stock SDXL text-to-image pipeline
    requests: Sequence[Request],
    plain: EncodedPrompts,
    negative: EncodedPrompts | None,
    conditioning: Conditioning | None = None,
    switch: Callable[[bool], None] | None = None,
    more: Mapping[str, Any] | None = None,
) -> list[Image.Image]:
    """Draw a batch with a stock pipeline.

    Args:
        pipeline: The pipeline.
        requests: Alike in all but prompt and seed, with nothing left open.
        plain: Their prompts without a person.
        negative: Their negative prompts, of the same length; None is zeros.
        conditioning: What takes the prompts' place from the merge step on.
        switch: See `DelayedMerging`.
        more: Further arguments of the pipeline's call.
    """
    sampling = requests[0].sampling
    embeds: dict[str, Any] = {"prompt_embeds": plain.embeds, "pooled_prompt_embeds": plain.pooled}
    if negative is not None:
        embeds |= {
            "negative_prompt_embeds": negative.embeds,
            "negative_pooled_prompt_embeds": negative.pooled,
        }
    merging = DelayedMerging(conditioning, last_text_only_step(sampling), pipeline.scheduler.order, switch)
    with kept_projections(pipeline.unet), merging.attached(pipeline.unet):
        result = pipeline(
            **embeds,
            **call_settings(requests),
            **(more or {}),
        )
    return list(result.images)
