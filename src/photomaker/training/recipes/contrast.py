"""Tuning a positive and a negative condition together, through classifier-free guidance.

What is to be predicted is compared with negative + scale * (positive - negative), so that each of the two learns what
the other lacks. Where a reconstruction is asked for, the picture that this prediction stands for is compared with the
photo as the autoencoder gives it.

Source: DreamArtist, arXiv 2211.11337, section 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from photomaker.training.losses.diffusion import time_ids, weighted_error
from photomaker.training.recipes.tuning import Condition, PersonRecipe


@dataclass
class ContrastRecipe(PersonRecipe):
    """Learns the noise of one person's photos by a guided prediction; see `PersonRecipe`.

    Attributes:
        negative: The captions with the negative words; it must be given.
        scale: Guidance scale that is trained with.
        reconstruction: Weight of the mean absolute difference of pixels, 0..2; 0 leaves it out.
    """

    negative: Condition | None = None
    scale: float = 5.0
    reconstruction: float = 0.0

    name = "contrast"

    def loss(
        self, rows: np.ndarray, rng: np.random.Generator, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        """Predict the noise of photos under captions drawn at random, each in both forms."""
        assert self.negative is not None
        places = torch.from_numpy(rng.integers(len(self.settings.templates), size=len(rows))).to(self.device)
        clean = self.examples.latents[rows].to(self.device)
        cells = self.examples.cells[rows].to(self.device)
        noisy, steps, target, weight = self.noising(clean, generator)
        both = [torch.cat(parts) for parts in zip(self.negative(places), self.condition(places), strict=True)]
        predicted = self.guided(noisy, steps, both[0], both[1])
        loss = (weighted_error(predicted, target, cells) * weight[:, 0, 0, 0]).mean()
        if not self.reconstruction:
            return loss, {}
        seen = self.noising.clean(noisy, predicted, steps)
        with torch.no_grad():
            photo = self._pixels(clean)
        rebuilt = (self._pixels(seen) - photo).abs().mean()
        return loss + self.reconstruction * rebuilt, {"rebuilt": float(rebuilt.detach())}

    def guided(self, noisy: Tensor, steps: Tensor, embeds: Tensor, pooled: Tensor) -> Tensor:
        """What the UNet predicts, guided [batch, channels, h, w]; the conditions' negative rows come first."""
        dtype, own = self.pipeline.unet.dtype, next(self.model.parameters()).dtype
        times = time_ids(2 * len(noisy), self.size).to(self.device, embeds.dtype)
        added: dict[str, Any] = {"text_embeds": pooled.to(own), "time_ids": times}
        with torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32):
            predicted = self.model(
                torch.cat([noisy, noisy]).to(own),
                torch.cat([steps, steps]),
                encoder_hidden_states=embeds.to(own),
                added_cond_kwargs=added,
                return_dict=False,
            )[0]
        negative, positive = predicted.chunk(2)
        return negative + self.scale * (positive - negative)

    def _pixels(self, latents: Tensor) -> Tensor:
        vae = self.pipeline.vae
        return vae.decode((latents / vae.config.scaling_factor).to(vae.dtype), return_dict=False)[0].float()
