"""Short trainings of adapters that differ from a reference in one choice of the method each.

All start alike: the frozen base, a trained image tower, projections and fusion that start anew, so that no variant's
fusion is nearer to a finished one than another's, and a trained LoRA or a new one.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from photomaker.encoders.adapter_file import AdapterFile, read_adapter
from photomaker.encoders.id_encoder import FULL_SIZE, PhotoMakerIDEncoder, vision_config
from photomaker.training.data.dataset import People
from photomaker.training.data.photos import PhotoSettings
from photomaker.training.losses.diffusion import LossSettings
from photomaker.training.recipes.adapter import FILE, AdapterRecipe
from photomaker.training.recipes.base import BaseParts
from photomaker.training.recipes.people import AdapterSettings, Ingredients
from photomaker.training.running.loop import train
from photomaker.training.running.settings import TrainSettings

REFERENCE = AdapterSettings(
    rank=20,
    lr=5e-4,
    fusion_lr=1e-3,
    vision_lr=1e-4,
    text_only=0.1,
    masked=0.5,
    photo=PhotoSettings(noise=0.5, grey=0.0, brightness=0.15, shift=4),
    diffusion=LossSettings(face=2.0),
)
"""The method, much as the bundled adapter was trained: the fusion learns faster, since it starts anew, and no photo is
cut out on grey, so that noise in the background is one switch."""

VARIANTS: Mapping[str, AdapterSettings] = {
    "reference": REFERENCE,
    "average": replace(REFERENCE, stack="average"),
    "linear": replace(REFERENCE, stack="linear"),
    "no_mask": replace(REFERENCE, masked=0.0),
    "no_noise": replace(REFERENCE, photo=replace(REFERENCE.photo, noise=0.0)),
    "target_among": replace(REFERENCE, target_among=True),
    "no_class_word": replace(REFERENCE, class_word=False),
}
"""Every variant by its name; each but the first differs from the first in one setting."""

HELD_OUT = 4
"""People kept for the log's validation losses; the figures are of other people altogether."""


def fresh_encoder(trained: AdapterFile, seed: int) -> PhotoMakerIDEncoder:
    """An ID encoder with a trained image tower, and projections and fusion that start from scratch.

    Args:
        trained: The adapter whose tower is taken.
        seed: Seed of the new weights.

    Raises:
        WeightsError: The adapter's weights do not fit its sizes.
    """
    names = (*FULL_SIZE, "hidden_act")
    config = vision_config(**{name: value for name, value in trained.config.items() if name in names})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = PhotoMakerIDEncoder(config)
    known = trained.build_encoder().float()
    encoder.vision_model.load_state_dict(known.vision_model.state_dict())
    with (
        torch.no_grad()
    ):  # the size of the rows that a trained LoRA is used to; a new one has it set by the recipe
        encoder.fuse_module.layer_norm.weight.fill_(float(known.fuse_module.layer_norm.weight.mean()))
    return encoder


def train_variant(
    name: str,
    data: People,
    latents: np.ndarray,
    base: Path,
    start: Path,
    settings: TrainSettings,
    folder: Path,
    new_lora: bool = False,
) -> Path | None:
    """Train a variant, or continue where a training in that folder was stopped.

    Args:
        name: One of `VARIANTS`.
        data: The people.
        latents: Of the same rows, from the base's autoencoder.
        base: Diffusers folder of the base.
        start: Adapter file whose image tower, and LoRA if not `new_lora`, every variant starts with.
        settings: How long and how; its seed is that of new weights, batches, photos and noise.
        folder: The training's own; `done.json` in it marks the end, after which nothing is done again.
        new_lora: Whether the LoRA starts from scratch.

    Returns:
        The adapter file; None if the training was asked to stop before its end.

    Raises:
        WeightsError: Base, adapter or checkpoint is missing, damaged, or does not fit the others.
    """
    done, adapter = folder / "done.json", folder / "export" / FILE
    if not done.is_file():
        parts = BaseParts.load(base)
        trained = read_adapter(start)
        encoder = fresh_encoder(trained, settings.seed)
        lora = None if new_lora else trained.lora
        recipe = AdapterRecipe(Ingredients(data, latents, parts, encoder, VARIANTS[name], HELD_OUT), lora)
        if not train(recipe, settings, folder)["finished"]:
            return None
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # only a stopped training needs them
    return adapter
