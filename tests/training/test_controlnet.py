"""The recipe of a ControlNet: it learns to follow a structure, leaves the base alone, and what it exports opens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_world import FakeWorld
from PIL import Image
from test_adapter import SIZES
from test_base import tiny_parts

from photomaker.encoders.id_encoder import PhotoMakerIDEncoder
from photomaker.errors import SettingsError
from photomaker.pipelines.structures.landmarks import Pencil, draw_landmarks
from photomaker.pipelines.structures.structures import Drawing, drawing_of, edges_of
from photomaker.training.data.frames import Frames
from photomaker.training.data.latents import cached_latents
from photomaker.training.data.structures import RowStructures
from photomaker.training.losses.diffusion import LossSettings
from photomaker.training.recipes.controlnet import ControlNetRecipe, ControlNetSettings
from photomaker.training.recipes.id_tower import tower_config
from photomaker.training.recipes.people import AdapterSettings, Ingredients
from photomaker.training.running.loop import TrainSettings, train

PENCIL = Pencil(2.5, 1.0)
SETTINGS = AdapterSettings(lr=2e-3, masked=0.0, diffusion=LossSettings(null_text=0.5))
STEPS = TrainSettings(steps=24, batch_size=8, ema_decay=0.8, log_every=6, save_every=0)


def make(folder: Path, structure: Any = "mask") -> ControlNetRecipe:
    world = FakeWorld()
    parts = tiny_parts(world)
    torch.manual_seed(1)
    encoder = PhotoMakerIDEncoder(tower_config(SIZES, (32, 32)))
    own = ControlNetSettings(Drawing(structure, PENCIL, 1.0), hint=(4, 4, 8, 8))
    latents = cached_latents(parts.autoencoder, world, folder / "latents")
    return ControlNetRecipe(Ingredients(world, latents, parts, encoder, SETTINGS), own=own)


def test_it_learns_to_follow_and_exports_diffusers_layout_with_notes(tmp_path: Path) -> None:
    from diffusers import ControlNetModel

    recipe = make(tmp_path)
    base = {name: one.clone() for name, one in recipe.parts.unet.state_dict().items()}
    plain = recipe.net.controlnet_mid_block.weight.abs().sum().item()
    figures = train(recipe, STEPS, tmp_path / "run")
    assert plain == 0 < recipe.net.controlnet_mid_block.weight.abs().sum().item()
    assert figures["validation_loss"] < figures["validation_loss_of_other_structure"]
    after = recipe.parts.unet.state_dict()
    assert all(torch.equal(base[name], after[name]) for name in base)
    net = ControlNetModel.from_pretrained(tmp_path / "run/export")
    assert net.config.conditioning_embedding_out_channels == [4, 4, 8, 8]
    assert drawing_of(tmp_path / "run/export", "mask") == recipe.own.drawing


def test_it_starts_as_the_base_itself(tmp_path: Path) -> None:
    recipe, rows = make(tmp_path), np.array([0, 7])
    noised = recipe.noised(rows, torch.Generator().manual_seed(0))
    captions = ["a photo of a man img in the snow"] * 2
    condition = recipe.condition(captions, [], np.zeros(2, bool), np.random.default_rng(0))
    with torch.no_grad():
        found = recipe.predict(noised, condition)
        wanted = super(ControlNetRecipe, recipe).predict(noised, condition)
    torch.testing.assert_close(found, wanted)


def test_structures_are_those_of_the_pictures() -> None:
    world, rows = FakeWorld(), np.array([3, 4])
    frames = Frames.of_the_world(world.boxes)
    for structure, wanted in (
        ("landmarks", draw_landmarks(world.landmarks[4], (128, 128), PENCIL)),
        ("edges", edges_of(Image.fromarray(world.images[4]))),
        ("mask", Image.fromarray(world.masks[4]).convert("RGB")),
    ):
        made = RowStructures(world, frames, Drawing(structure, PENCIL))(rows)  # type: ignore[arg-type]
        assert made.shape == (2, 3, 128, 128)
        assert np.array_equal((made[1].permute(1, 2, 0).numpy() * 255).round(), np.asarray(wanted))


def test_a_structure_that_the_data_does_not_know() -> None:
    world = FakeWorld()
    frames = Frames.of_the_world(world.boxes)
    with pytest.raises(SettingsError, match="depth is known of data of kind world"):
        RowStructures(world, frames, Drawing("depth"))
    del world.landmarks
    with pytest.raises(SettingsError, match="the data has no landmarks to follow"):
        RowStructures(world, frames, Drawing("landmarks"))
    with pytest.raises(SettingsError, match="hint is"):
        ControlNetSettings(hint=(4, 4))
