"""Inpainting on any image-to-image pipeline: latents outside the mask are restored after every step.

diffusers' inpainting pipelines take 4 or 9 channels and nothing else, and one class for each combination with other
things; this works with every number of channels and under ControlNets.

Source: arXiv 2201.09865 (RePaint), section 4.1, without resampling.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from PIL import Image, ImageFilter
from torch import Tensor

from photomaker.pipelines.steps.watching import step_in

SOFT = 1 / 64
"""Width of the seam, as a share of the picture's shorter side."""


@contextmanager
def kept_outside(pipeline: Any, kept: Tensor, noise: Tensor, mask: Tensor) -> Iterator[None]:  # noqa: ANN401
    """Have latents outside a mask stay those of a picture, during the context.

    Args:
        pipeline: Any stock image-to-image pipeline.
        kept: Latents of the picture [1, channels, height, width].
        noise: For each row of the batch [rows, channels, height, width].
        mask: 1 if the picture is redrawn, 0 if it stays [1, 1, height, width].
    """
    scheduler = pipeline.scheduler
    stock, calls = scheduler.step, 0

    @functools.wraps(stock)
    def step(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        nonlocal calls
        result = stock(*args, **kwargs)
        calls += 1
        drawn = result[0]
        place = len(scheduler.timesteps) - pipeline._num_timesteps + calls
        known = kept.expand_as(drawn)
        if place < len(scheduler.timesteps):
            known = scheduler.add_noise(known, noise.to(drawn), scheduler.timesteps[place : place + 1])
        return (mask * drawn + (1 - mask) * known, *result[1:])

    with step_in(scheduler, step):
        yield


def latent_mask(mask: Image.Image, height: int, width: int) -> Tensor:
    """A mask as [1, 1, height, width] of 0 and 1: a latent that white touches is redrawn."""
    pixels = torch.frombuffer(bytearray(mask.convert("L").tobytes()), dtype=torch.uint8)
    whole = pixels.reshape(1, 1, mask.height, mask.width).float()
    return (torch.nn.functional.adaptive_max_pool2d(whole, (height, width)) >= 128).float()  # noqa: PLR2004 - half


def pasted(drawn: Sequence[Image.Image], picture: Image.Image, mask: Image.Image) -> list[Image.Image]:
    """What was drawn inside the mask, and outside it the picture's own pixels; the seam lies inside and is soft."""
    soft = SOFT * min(mask.size)
    # narrower first, so that the softened mask is 0 wherever the given one is
    size = 2 * max(1, round(2 * soft)) + 1
    inner = mask.convert("L").point(lambda value: 255 if value >= 128 else 0)  # noqa: PLR2004 - half
    ramp = inner.filter(ImageFilter.MinFilter(size)).filter(ImageFilter.GaussianBlur(soft))
    seam = Image.composite(ramp, Image.new("L", mask.size), inner)
    return [Image.composite(one, picture, seam) for one in drawn]
