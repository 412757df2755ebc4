"""How long and how a recipe is trained, and the learning rate that follows from it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch

from photomaker import bfloat16
from photomaker.errors import SettingsError

TIMED = 30
"""Steps of a session that tell how many fit into `TrainSettings.seconds`."""


@dataclass(frozen=True)
class TrainSettings:
    """Settings of the training loop.

    Attributes:
        steps: Optimiser steps in all, 1 or more.
        batch_size: Rows of a slice: what goes through the model at once in one process, 1 or more.
        accumulate: Slices of a step and process, 1 or more; a step has batch_size * accumulate * processes rows.
        seed: Seed of everything random.
        warmup: Steps over which the learning rate rises from 0.
        schedule: Shape of the learning rate after that; `cosine` ends at 2 % of the peak, `linear_decay` at 0.
        ema_decay: Decay of the averaged weights, 0..1; 0 switches averaging off.
        clip: Largest gradient norm; 0 switches clipping off.
        precision: Autocast precision; `auto` is bf16 where the device computes in it, else fp32.
        save_every: Steps between checkpoints; 0 saves only at the end.
        log_every: Steps between log lines.
        keep: Number of checkpoints kept, beside the one with the lowest validation loss.
        betas: AdamW's decay rates.
        preview_every: Steps between sheets of pictures; 0 makes none.
        tensorboard: Whether figures and pictures are written for TensorBoard too.
        export: Which weights the result is made of.
        seconds: Time for the steps; 0 is no limit. After `TIMED` steps, `steps` becomes what fits.

    Raises:
        SettingsError: A value is outside its range.
    """

    steps: int
    batch_size: int
    accumulate: int = 1
    seed: int = 0
    warmup: int = 0
    schedule: Literal["cosine", "constant", "linear_decay"] = "cosine"
    ema_decay: float = 0.999
    clip: float = 1.0
    precision: Literal["auto", "bf16", "fp32"] = "fp32"
    save_every: int = 500
    log_every: int = 20
    keep: int = 2
    betas: tuple[float, float] = (0.9, 0.99)
    preview_every: int = 0
    tensorboard: bool = False
    export: Literal["last", "best"] = "last"
    seconds: float = 0.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("steps", "batch_size", "accumulate", "log_every", "keep"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} is {getattr(self, name)}; give a whole number from 1 up")
        for name in ("seed", "warmup", "save_every", "clip", "preview_every", "seconds"):
            if getattr(self, name) < 0:
                raise SettingsError(f"{name} is {getattr(self, name)}; give a number from 0 up")
        if not 0 <= self.ema_decay < 1:
            raise SettingsError(f"ema_decay is {self.ema_decay}; give a number from 0 to below 1")
        if self.schedule not in {"cosine", "constant", "linear_decay"}:
            raise SettingsError(f"schedule is {self.schedule!r}; give cosine, constant or linear_decay")
        if self.precision not in {"auto", "bf16", "fp32"}:
            raise SettingsError(f"precision is {self.precision!r}; give auto, bf16 or fp32")

    def on(self, device: str | torch.device) -> Literal["bf16", "fp32"]:
        """The precision on a device."""
        if self.precision != "auto":
            return self.precision
        return "bf16" if bfloat16.quick(device) else "fp32"


def rate_factor(step: int, settings: TrainSettings) -> float:
    """Share of the peak learning rate at `step` (0-based), in 0..1."""
    if step < settings.warmup:
        return (step + 1) / settings.warmup
    done = min(1.0, (step - settings.warmup) / max(1, settings.steps - settings.warmup))
    if settings.schedule == "cosine":
        return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done))
    return 1.0 - done if settings.schedule == "linear_decay" else 1.0
