"""DreamBooth: the UNet itself is tuned on the person under a rare word, beside pictures of the class.

Source: arXiv 2208.12242. The whole UNet is tuned, or a LoRA in its place; the base's own pictures of the class keep it
from forgetting what everybody else looks like (prior preservation).
"""

from __future__ import annotations

import copy
import os
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel
from torch import Tensor

from photomaker.errors import IdentityError, SettingsError
from photomaker.methods.tuned import RARE, TunedMethod, must_exist
from photomaker.pipelines.drawing.changes import (
    check_difference,
    difference_in,
    lora_in,
    lora_parameters,
    lora_tensors,
    new_lora,
)
from photomaker.training.recipes.tuning import (
    Examples,
    PriorSettings,
    Progress,
    TuningSettings,
    fixed,
    tune,
)
from photomaker.types import Identity
from photomaker.weights import read_tensors

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
WEIGHTS = "diffusion_pytorch_model.safetensors"
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class DreamBoothSettings:
    """How the UNet is tuned; the defaults are those of the diffusers scripts with the paper's prior preservation.

    Attributes:
        kind: `lora` tunes a LoRA (the script for SDXL), `full` the whole UNet (the paper).
        rank: Rank of the LoRA.
        targets: Endings of the names of the layers that get a LoRA.
        token: The rare word before the class word.
        precision: How the difference of a whole UNet is kept.
        prior: The base's own pictures of the class.
        tuning: The shared recipe.

    Raises:
        SettingsError: A value is outside its range.
    """

    kind: Literal["lora", "full"] = "lora"
    rank: int = 4
    targets: tuple[str, ...] = ATTENTION
    token: str = RARE
    precision: Literal["fp32", "bf16", "fp16"] = "fp16"
    prior: PriorSettings = field(default_factory=PriorSettings)
    tuning: TuningSettings = field(default_factory=lambda: TuningSettings(steps=500, lr=1e-4, batch_size=4))

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.kind not in ("lora", "full"):
            raise SettingsError(f"kind is {self.kind!r}; give lora or full")
        if self.precision not in PRECISIONS:
            raise SettingsError(f"precision is {self.precision!r}; give one of {', '.join(PRECISIONS)}")
        if self.rank < 1:
            raise SettingsError(f"rank is {self.rank}; give a whole number from 1 up")


FULL = DreamBoothSettings(
    kind="full", prior=PriorSettings(pictures=200), tuning=TuningSettings(steps=800, lr=5e-6, batch_size=1)
)
"""The whole UNet, as the diffusers README has it for people: 800 steps with prior."""

SMALL_FULL = DreamBoothSettings(
    kind="full",
    prior=PriorSettings(pictures=32, steps=20),
    tuning=TuningSettings(steps=200, lr=3e-4, batch_size=4),
)
"""The whole UNet of the bundled small base."""


class DreamBooth(TunedMethod[DreamBoothSettings]):
    """DreamBooth on a diffusers SDXL pipeline."""

    name: ClassVar[str] = "dreambooth"
    published: ClassVar[DreamBoothSettings] = DreamBoothSettings()
    small: ClassVar[DreamBoothSettings] = SMALL_FULL

    def tune(
        self, examples: Examples, class_phrase: str, progress: Progress | None
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tune the UNet or a LoRA of it; see `TunedMethod.tune`."""
        settings = self.settings
        notes = {"token": settings.token, "kind": settings.kind}
        parts = {
            "condition": fixed(self.pipeline, self.captions(notes, class_phrase)),
            "prior": self.prior(class_phrase, settings.prior),
        }
        if settings.kind == "lora":
            with new_lora(self.pipeline, settings.rank, settings.targets, settings.tuning.seed):
                layers = lora_parameters(self.pipeline.unet)
                told = tune(self.recipe({"lora": layers}, examples, **parts), progress)
                return lora_tensors(self.pipeline), notes | told
        # a copy in float32: the base itself is not touched, and small steps are not lost to rounding
        unet = copy.deepcopy(self.pipeline.unet).float().requires_grad_(True)
        told = tune(self.recipe({"unet": unet}, examples, unet=unet, **parts), progress)
        return self._difference(dict(unet.named_parameters())), notes | told

    def _difference(self, tuned: dict[str, Tensor]) -> dict[str, Tensor]:
        base, precision = dict(self.pipeline.unet.named_parameters()), PRECISIONS[self.settings.precision]
        check_difference(base, tuned)
        return {
            name: (tensor.detach().to(base[name].device).float() - base[name].detach().float()).to(precision)
            for name, tensor in tuned.items()
        }

    def put_in(self, identity: Identity, weight: float) -> AbstractContextManager[None]:
        """Add the difference, or load the LoRA, and undo it."""
        if identity.notes.get("kind") == "lora":
            return lora_in(self.pipeline, identity.tensors, weight)
        return difference_in(self.pipeline.unet, identity.tensors, weight)

    def load_published(self, path: str | os.PathLike[str], token: str = RARE) -> Identity:
        """Read a tuned UNet in diffusers' layout, or a LoRA file.

        Args:
            path: A pipeline's folder with `unet/`, a UNet's folder, its safetensors file, or a LoRA file or a folder
                with `pytorch_lora_weights.safetensors`.
            token: The rare word that it was tuned with.

        Raises:
            IdentityError: There is no such file.
            WeightsError: It is damaged, or of a different base.
        """
        place = must_exist(path)
        notes = {"token": token, "published": place.name}
        if place.is_dir():
            inside = (place / "unet", place, place / "pytorch_lora_weights.safetensors")
            found = [one for one in inside if one.is_file() or (one / WEIGHTS).is_file()]
            if not found:
                raise IdentityError(
                    f"there is neither {WEIGHTS} nor pytorch_lora_weights.safetensors in {place}; give such a folder"
                )
            place = found[0] / WEIGHTS if found[0].is_dir() else found[0]
        tensors = read_tensors(place)
        if any("lora" in name for name in tensors):
            with lora_in(self.pipeline, place):
                return self.identity(lora_tensors(self.pipeline), notes | {"kind": "lora"})
        return self.identity(self._difference(tensors), notes | {"kind": "full"})

    def export(self, identity: Identity, folder: str | os.PathLike[str]) -> Path:
        """Write a UNet's folder, which takes the base's `unet/` place, or a LoRA's file.

        Returns:
            The folder of the UNet, or the file of the LoRA.

        Raises:
            IdentityError: The identity is of another method or base.
        """
        self.check_identity(identity)
        if identity.notes.get("kind") == "lora":
            state = {name.removeprefix("unet."): tensor for name, tensor in identity.tensors.items()}
            StableDiffusionXLPipeline.save_lora_weights(folder, unet_lora_layers=state)
            return Path(folder) / "pytorch_lora_weights.safetensors"
        unet: UNet2DConditionModel = self.pipeline.unet
        with difference_in(unet, identity.tensors):
            unet.save_pretrained(folder)
        return Path(folder)
