"""LoRA alone: low-rank changes of the UNet's attention, tuned on the person's photos, without a prior.

Source: LoRA, arXiv 2106.09685.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers import StableDiffusionXLPipeline

from photomaker.errors import SettingsError
from photomaker.methods.tuned import RARE, TunedMethod, must_exist
from photomaker.pipelines.drawing.changes import lora_in, lora_parameters, lora_tensors, new_lora
from photomaker.training.recipes.tuning import Examples, Progress, TuningSettings, fixed, tune
from photomaker.types import Identity

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
FILE = "pytorch_lora_weights.safetensors"


@dataclass(frozen=True)
class LoraSettings:
    """How a LoRA is tuned; the defaults are those of the diffusers script for SDXL.

    Attributes:
        rank: Rank of the LoRA; its alpha is the same, so that its scale is 1.
        targets: Endings of the names of the layers that get one.
        token: The rare word before the class word.
        tuning: The shared recipe.

    Raises:
        SettingsError: The rank is below 1.
    """

    rank: int = 4
    targets: tuple[str, ...] = ATTENTION
    token: str = RARE
    tuning: TuningSettings = field(default_factory=lambda: TuningSettings(steps=500, lr=1e-4, batch_size=4))

    def __post_init__(self) -> None:
        """Check the range."""
        if self.rank < 1:
            raise SettingsError(f"rank is {self.rank}; give a whole number from 1 up")


class Lora(TunedMethod[LoraSettings]):
    """LoRA on a diffusers SDXL pipeline."""

    name: ClassVar[str] = "lora"
    published: ClassVar[LoraSettings] = LoraSettings()
    small: ClassVar[LoraSettings] = LoraSettings(
        rank=16, tuning=TuningSettings(steps=200, lr=1e-3, batch_size=4)
    )

    def tune(
        self, examples: Examples, class_phrase: str, progress: Progress | None
    ) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Tune the LoRA; see `TunedMethod.tune`."""
        settings, notes = self.settings, {"token": self.settings.token}
        condition = fixed(self.pipeline, self.captions(notes, class_phrase))
        with new_lora(self.pipeline, settings.rank, settings.targets, settings.tuning.seed):
            layers = lora_parameters(self.pipeline.unet)
            told = tune(self.recipe({"lora": layers}, examples, condition=condition), progress)
            return lora_tensors(self.pipeline), notes | told

    def put_in(self, identity: Identity, weight: float) -> AbstractContextManager[None]:
        """Load the LoRA, and take it out again."""
        return lora_in(self.pipeline, identity.tensors, weight)

    def load_published(self, path: str | os.PathLike[str], token: str = "") -> Identity:
        """Read a LoRA file of diffusers' or kohya's layout.

        Args:
            path: A safetensors file; text encoder parts are kept too.
            token: The word that it was trained with before the class word, if any.

        Raises:
            IdentityError: There is no such file.
            WeightsError: It is not a LoRA of this base.
        """
        place = must_exist(path)
        with lora_in(self.pipeline, place):
            return self.identity(lora_tensors(self.pipeline), {"token": token, "published": place.name})

    def export(self, identity: Identity, folder: str | os.PathLike[str]) -> Path:
        """Write `pytorch_lora_weights.safetensors`, which `load_lora_weights` of any diffusers pipeline reads.

        Raises:
            IdentityError: The identity is of another method or base.
        """
        self.check_identity(identity)
        parts = {
            part: {
                name.removeprefix(f"{part}."): tensor
                for name, tensor in identity.tensors.items()
                if name.startswith(f"{part}.")
            }
            for part in ("unet", "text_encoder", "text_encoder_2")
        }
        StableDiffusionXLPipeline.save_lora_weights(
            folder,
            unet_lora_layers=parts["unet"],
            text_encoder_lora_layers=parts["text_encoder"],
            text_encoder_2_lora_layers=parts["text_encoder_2"],
        )
        return Path(folder) / FILE
