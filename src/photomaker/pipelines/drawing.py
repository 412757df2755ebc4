"""What methods on a stock SDXL pipeline share: opening it, photos, what a request leaves open, batches, texts."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from diffusers.utils import logging as diffusers_logging
from PIL import Image
from torch import Tensor
from transformers.utils import logging as transformers_logging

from photomaker.encoders import cut_out, face_square
from photomaker.errors import PhotoError, SettingsError, WeightsError
from photomaker.hub import base_folder, variant_of
from photomaker.outside import read_file
from photomaker.pipelines.guidance import GuidanceInterval
from photomaker.pipelines.memory import MemoryPlan, apply_memory, plan_memory
from photomaker.pipelines.merging import Conditioning, DelayedMerging, steps_of
from photomaker.pipelines.projections import kept_projections
from photomaker.pipelines.schedulers import scheduler_for
from photomaker.pipelines.shortcuts import Sparing
from photomaker.pipelines.watching import Watch, watched
from photomaker.prompts import EncodedPrompts, Rows, encode_rows, expand_rows, lengthened, weighed
from photomaker.types import Reference, Request, Sampling
from photomaker.weights import bundled

Background = Literal["keep", "grey"]
BACKGROUNDS: tuple[Background, ...] = ("keep", "grey")
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


def open_pipeline(
    kind: Any,  # noqa: ANN401 - a diffusers pipeline class
    base: str | os.PathLike[str] | None,
    dtype: torch.dtype,
    variant: str | None = None,
) -> Any:  # noqa: ANN401 - of that class
    """Load a base model into a pipeline.

    Args:
        kind: The pipeline's class.
        base: Diffusers folder or hub id of an SDXL model; None is the bundled small one.
        dtype: Precision of all models.
        variant: Which form of the weights to load, such as `fp16`; None is the plain one, or the only one.

    Raises:
        WeightsError: It is missing, altered or damaged.
    """
    path = bundled("base") if base is None else base_folder(base, variant)
    try:
        with quietly():
            pipeline = kind.from_pretrained(
                path, dtype=dtype, add_watermarker=False, variant=variant_of(path, variant)
            )
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0][:200]
        raise WeightsError(
            f"the base model {path} cannot be loaded ({reason}); give a diffusers SDXL folder"
        ) from error
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def unet_config(base: str | os.PathLike[str] | None, variant: str | None = None) -> dict[str, Any]:
    """The configuration of a base's UNet, read before any weights are.

    Args:
        base: Diffusers folder or hub id of an SDXL model; None is the bundled small one.
        variant: Which form of the weights is meant, such as `fp16`.

    Raises:
        WeightsError: It is missing or damaged.
    """
    folder = bundled("base") if base is None else base_folder(base, variant)
    return read_file(folder / "unet" / "config.json", "fetch the base again", WeightsError)


def place_pipeline(
    pipeline: Any,  # noqa: ANN401 - any SDXL pipeline
    device: str | torch.device | None,
    memory: str,
    whole: bool = False,
) -> MemoryPlan:
    """Put a pipeline where it should draw.

    Args:
        pipeline: A loaded pipeline.
        device: Where to compute; None is CUDA if available, else the CPU.
        memory: See `photomaker.pipelines.memory`.
        whole: Whether the UNet must stay in one piece, because something is put into it.

    Raises:
        SettingsError: `memory` is not a known plan, or cuts up a UNet that must stay whole.
    """
    plan = plan_memory(pipeline, str(device or ("cuda" if torch.cuda.is_available() else "cpu")), memory)
    if whole and plan.offload == "sequential":
        raise SettingsError(
            f"memory is {memory}, with the plan {plan.line()}, which this method cannot follow; choose balanced"
        )
    apply_memory(pipeline, plan)
    return plan


@contextmanager
def quietly() -> Iterator[None]:
    """No bars and no remarks of the libraries while weights are loaded."""
    level = diffusers_logging.get_verbosity()
    shown = [
        library for library in (diffusers_logging, transformers_logging) if library.is_progress_bar_enabled()
    ]
    diffusers_logging.set_verbosity_error()
    for library in shown:
        library.disable_progress_bar()
    try:
        yield
    finally:
        diffusers_logging.set_verbosity(level)
        for library in shown:
            library.enable_progress_bar()


# ---- photos


def checked_background(given: str | None, default: Background) -> Background:
    """What is done to the ground of photos.

    Raises:
        SettingsError: It is of an unknown kind.
    """
    ground = given or default
    if ground not in BACKGROUNDS:
        raise SettingsError(f"background is {ground!r}; give one of {', '.join(BACKGROUNDS)}")
    return ground  # type: ignore[return-value]


def prepared_picture(reference: Reference, background: Background, side: float) -> Image.Image:
    """A photo as an image encoder was trained to see it: with or without background, whole or around the face.

    Args:
        reference: The photo.
        background: "grey" cuts the person out where the reference has a mask.
        side: Side of the square around the face, in longer sides of its box; 0 takes the whole photo.

    Raises:
        PhotoError: The mask is empty, or a face is needed and there is none.
    """
    picture, called = reference.image, reference.name or "(unnamed)"
    if background == "grey" and reference.mask is not None:
        if not reference.mask.any():
            raise PhotoError(f"the person mask of photo {called} is empty; leave the photo out")
        picture = cut_out(picture, reference.mask)
    if side <= 0:
        return picture
    if reference.face is None:
        raise PhotoError(
            f"this adapter needs a face in every photo, but photo {called} has none; leave it out"
        )
    return face_square(picture, reference.face.box, side)


def photo_weights(weights: Sequence[float] | None, photos: int) -> Tensor:
    """Weights of photos [photos], 1 if none are given.

    Raises:
        SettingsError: There are not as many as photos, or one is below 0.
    """
    given = torch.ones(photos) if weights is None else torch.tensor(list(weights), dtype=torch.float32)
    if given.shape != (photos,) or not bool((torch.isfinite(given) & (given >= 0)).all()):
        raise SettingsError(
            f"the photo weights are {given.tolist()}; give one number from 0 up for each photo"
        )
    return given


def photo_notes(references: Sequence[Reference], background: str) -> dict[str, Any]:
    """What an identity notes of its photos."""
    photos = [{"name": one.name, "sha256": one.sha256} for one in references]
    return {"photos": photos, "background": background}


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
