"""Recipe that continues training a base's UNet by captions alone, around which the finishing by reward fits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from photomaker.training.data.texts import Caption
from photomaker.training.losses.diffusion import encode_ids
from photomaker.training.recipes.base import decayed_groups, token_ids
from photomaker.training.recipes.people import Condition, Ingredients, PeopleRecipe


class TunedBaseRecipe(PeopleRecipe):
    """Trains every weight of the UNet; photos are not looked at, and the text encoders stay as they are.

    Of `AdapterSettings`, `lr` and `weight_decay` are the UNet's, and `plain_captions` is the share of captions that
    describe no appearance. See `PeopleRecipe`.
    """

    name = "base"

    def __init__(self, given: Ingredients) -> None:
        """Let the UNet learn, in float32."""
        super().__init__(given)
        self.parts.unet.float().requires_grad_(True)
        self.dtype = self.parts.unet.dtype

    def modules(self) -> dict[str, nn.Module]:
        """Return the UNet."""
        return {"unet": self.parts.unet}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return its matrices and vectors."""
        return decayed_groups(self.parts.unet, self.settings.lr, self.settings.weight_decay)

    def _caption(self, row: int, rng: np.random.Generator) -> Caption:
        plain = rng.random() < self.settings.plain_captions
        return self.data.caption(row, rng, 0.0 if plain else float(rng.uniform(0.3, 1.0)))

    @torch.no_grad()
    def condition(
        self,
        captions: Sequence[Caption],
        references: list[np.ndarray],
        text_only: np.ndarray,
        rng: np.random.Generator,
    ) -> Condition:
        """The captions, whatever the photos; see `PeopleRecipe.condition`."""
        del references, text_only, rng
        texts = [one if isinstance(one, str) else one.before + one.after for one in captions]
        first, second = (ids.to(self.device) for ids in token_ids(self.parts.tokenizers, texts))
        return Condition(*encode_ids(self.parts.text_encoders, (first, second)))

    def export(self, folder: Path) -> None:
        """Write the base as a diffusers folder."""
        self.parts.save(folder)
