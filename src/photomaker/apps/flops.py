"""Operations that a UNet needs for a picture, counted, and those that a machine does in a second, measured."""

from __future__ import annotations

import math
import time
from typing import Any

import torch

from photomaker import bfloat16
from photomaker.pipelines.attention.shortcuts import Sparing
from photomaker.pipelines.steps.guidance import GuidanceInterval
from photomaker.types import Sampling


def picture_tflop(unet: Any, sampling: Sampling, side: int, guided: bool = True) -> float:  # noqa: ANN401
    """Operations of the UNet for one picture, counted, in units of 10^12; nothing is computed on a meta device.

    Args:
        unet: A diffusers UNet of SDXL's kind.
        sampling: How the picture is drawn, with nothing left open.
        side: Of the picture in latent cells.
        guided: Whether there is a negative row.
    """
    from torch.utils.flop_counter import FlopCounterMode

    steps, total = sampling.steps, 0
    interval = GuidanceInterval(sampling.guidance_start, sampling.guidance_stop, lambda: steps)
    with torch.no_grad(), Sparing(sampling, lambda: steps).attached(unet):
        for step in range(steps):
            with FlopCounterMode(display=False) as counter:
                unet(**unet_inputs(unet, 2 if guided and interval.guides(step) else 1, side))
            total += counter.get_total_flops()
    return total / 1e12


def unet_inputs(unet: Any, rows: int, side: int) -> dict[str, Any]:  # noqa: ANN401 - a diffusers UNet
    """Arguments of a UNet's call for some rows of latents `side` cells wide and high, on its device."""
    config, like = unet.config, next(unet.parameters())
    pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
    return {
        "sample": like.new_zeros(rows, config.in_channels, side, side),
        "timestep": 500,
        "encoder_hidden_states": like.new_zeros(rows, 77, config.cross_attention_dim),
        "added_cond_kwargs": {
            "text_embeds": like.new_zeros(rows, pooled),
            "time_ids": like.new_zeros(rows, 6),
        },
    }


def quick_dtype(device: str) -> torch.dtype:
    """What is timed: bfloat16, except for processors that only imitate it."""
    return torch.bfloat16 if bfloat16.quick(device) else torch.float32


def matmul_rate(device: str, side: int = 4096, tries: int = 5) -> float:
    """Best measured floating-point operations a second of a matrix product in that precision."""
    one = torch.randn(side, side).to(device, quick_dtype(device))
    best = math.inf
    for _ in range(tries):
        start = time.perf_counter()
        _ = one @ one
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best
