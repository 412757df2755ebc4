"""The recipes of the compared methods: they learn, leave the base alone, and what they export opens and draws."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_world import FakeWorld
from PIL import Image
from test_adapter import SIZES
from test_base import tiny_parts

from photomaker.encoders.fastcomposer import read_fastcomposer
from photomaker.encoders.id_encoder import PhotoMakerIDEncoder
from photomaker.encoders.ip_adapter import read_ip_adapter
from photomaker.encoders.photoverse import read_photoverse
from photomaker.encoders.tower import ImageTower
from photomaker.errors import SettingsError
from photomaker.methods.fastcomposer import FastComposer
from photomaker.methods.ip_adapter import IPAdapter
from photomaker.methods.photoverse import PhotoVerse
from photomaker.pipelines.drawing import open_pipeline
from photomaker.training.diffusion import DiffusionSettings, Noising, make_scheduler
from photomaker.training.fastcomposer import FastComposerRecipe, FastComposerSettings, localisation_loss
from photomaker.training.id_tower import tower_config
from photomaker.training.ip_adapter import IPAdapterRecipe, IPAdapterSettings
from photomaker.training.latents import cached_latents
from photomaker.training.loop import TrainSettings, train
from photomaker.training.people import AdapterSettings, Condition
from photomaker.training.photos import SMALL as SMALL_PHOTOS
from photomaker.training.photoverse import PhotoVerseRecipe, PhotoVerseSettings, random_fusion
from photomaker.types import Reference, Request, Sampling

SETTINGS = AdapterSettings(rank=4, lr=1e-2, fusion_lr=1e-2, vision_lr=1e-3, text_only=0.2, photo=SMALL_PHOTOS)
STEPS = TrainSettings(steps=24, batch_size=8, ema_decay=0.8, log_every=6, save_every=0)
KINDS = ("ip_adapter", "ip_adapter plus", "fastcomposer", "photoverse")


def likeness(pictures: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """Stands for a recogniser: the mean colour of each face."""
    means = [
        one[:, int(y0) : int(y1), int(x0) : int(x1)].mean((1, 2))
        for one, (x0, y0, x1, y1) in zip(pictures, boxes.tolist(), strict=True)
    ]
    return torch.nn.functional.normalize(torch.stack(means), dim=-1)


def make(kind: str, tmp_path: Path) -> Any:
    world = FakeWorld()
    parts = tiny_parts(world)
    torch.manual_seed(1)
    encoder = PhotoMakerIDEncoder(tower_config(SIZES, (32, 32)))
    given = (world, cached_latents(parts.autoencoder, world, tmp_path / "latents"), parts, encoder, SETTINGS)
    if kind == "fastcomposer":
        return FastComposerRecipe(*given, own=FastComposerSettings(localisation=0.1))
    if kind == "photoverse":
        own = PhotoVerseSettings(layers=(-1, -2), hidden=32, face_noise=0.6)
        return PhotoVerseRecipe(*given, own=own, face=likeness)
    form = "plus" if "plus" in kind else "base"
    return IPAdapterRecipe(*given, own=IPAdapterSettings(form=form, queries=3, hidden=64))


def opened(kind: str, folder: Path, base: Path, tower: ImageTower) -> Any:
    from diffusers import StableDiffusionXLPipeline

    pipeline = open_pipeline(StableDiffusionXLPipeline, base, torch.float32)
    if kind == "fastcomposer":
        return FastComposer(pipeline, read_fastcomposer(folder / "fastcomposer.safetensors"))
    if kind == "photoverse":
        return PhotoVerse(pipeline, read_photoverse(folder / "photoverse.safetensors"), tower)
    return IPAdapter(pipeline, read_ip_adapter(folder / "ip_adapter.safetensors"), tower)


@pytest.mark.parametrize("kind", KINDS)
def test_a_recipe_learns_leaves_the_base_alone_and_its_export_draws(kind: str, tmp_path: Path) -> None:
    recipe = make(kind, tmp_path)
    tiny_parts(FakeWorld()).save(tmp_path / "base", DiffusionSettings())

    def measured() -> float:
        with torch.no_grad():
            return float(
                recipe.loss(np.arange(24), np.random.default_rng(0), torch.Generator().manual_seed(0))[0]
            )

    before = measured()
    modules = {**recipe.modules(), "tower": recipe.id_encoder.vision_model}
    frozen = {
        f"{k}.{n}": p for k, m in modules.items() for n, p in m.named_parameters() if not p.requires_grad
    }
    trained = {
        f"{k}.{n}": p for k, m in recipe.modules().items() for n, p in m.named_parameters() if p.requires_grad
    }
    kept = {name: one.detach().clone() for name, one in {**frozen, **trained}.items()}
    in_groups = {id(one) for group in recipe.parameter_groups() for one in group["params"]}
    assert in_groups == {id(one) for one in trained.values()}
    figures = train(recipe, STEPS, tmp_path / "run")
    assert measured() < 0.95 * before
    assert figures["validation_loss"] > 0 and figures["validation_loss_of_stranger"] > 0
    assert frozen and all(torch.equal(kept[name], one) for name, one in frozen.items())
    assert all(
        not torch.equal(kept[name], one) for name, one in trained.items() if "post_layernorm" not in name
    )

    method = opened(
        kind, tmp_path / "run" / "export", tmp_path / "base", ImageTower.of_encoder(recipe.id_encoder)
    )
    people = [
        method.fit([Reference(Image.fromarray(recipe.data.images[row])) for row in rows])
        for rows in ([0, 1], [7])
    ]
    request = Request("a photo of a man img in the snow", Sampling(steps=2, guidance=2.0, merge=0.0))
    one, two = (np.array(method.generate(person, [request])[0]).astype(int) for person in people)
    assert np.abs(one - two).max() > 0


def test_what_is_trained_is_what_is_drawn_with(tmp_path: Path) -> None:
    """The UNet of the recipe and that of the opened method predict the same for the same condition."""
    recipe = make("ip_adapter", tmp_path)
    tiny_parts(FakeWorld()).save(tmp_path / "base", DiffusionSettings())
    train(recipe, STEPS, tmp_path / "run")
    method = opened(
        "ip_adapter", tmp_path / "run" / "export", tmp_path / "base", ImageTower.of_encoder(recipe.id_encoder)
    )
    rows, rng = np.array([0, 7]), np.random.default_rng(0)
    from photomaker.pipelines.changes import image_projection_in, processors_in

    unet = method.pipeline.unet
    state = torch.load(sorted((tmp_path / "run/checkpoints").glob("step*.pt"))[-1])["average"]
    with torch.no_grad():
        for name, one in recipe.parts.unet.named_parameters():
            if one.requires_grad:
                one.copy_(state[f"unet.{name}"])
        condition = recipe.condition(
            ["a photo of a man img in the snow"] * 2,
            [np.array([1, 2]), np.array([8])],
            np.zeros(2, bool),
            rng,
        )
        noised = recipe.noised(rows, torch.Generator().manual_seed(0))
        wanted = recipe.predict(noised, condition)
        recipe.parts.unet = unet
        with processors_in(unet, method.processors), image_projection_in(unet, method.projection):
            found = recipe.predict(noised, condition)
    torch.testing.assert_close(found, wanted, atol=2e-2, rtol=0)
    assert (found - wanted).abs().mean() < 0.2 * wanted.abs().mean()


def test_fastcomposer_has_no_other_loss_on_attention(tmp_path: Path) -> None:
    recipe = make("fastcomposer", tmp_path)
    with pytest.raises(SettingsError, match=r"recipe\.attention"):
        FastComposerRecipe(
            recipe.data, recipe.latents, recipe.parts, recipe.id_encoder, replace(SETTINGS, attention=0.1)
        )


def test_localisation_loss_by_hand() -> None:
    attention = torch.zeros(2, 4, 3)
    attention[0, :, 1] = torch.tensor([0.8, 0.6, 0.1, 0.3])
    tokens = torch.tensor([[False, True, False], [False, False, False]])
    mask = torch.tensor([[1.0, 1.0, 0.0, 0.0]] * 2)
    assert localisation_loss(attention, tokens, mask).item() == pytest.approx(0.2 - 0.7)
    assert localisation_loss(attention, tokens & False, mask).item() == 0


def test_rows_without_a_condition_have_nothing(tmp_path: Path) -> None:
    value = torch.ones(2, 3)
    condition = Condition(torch.ones(2, 4, 5), torch.ones(2, 6), {"a": value, "b": value}, {"b": value * 7})
    kept = condition.kept(torch.tensor([True, False]))
    assert kept.embeds[0].all() and not kept.embeds[1].any() and not kept.pooled[1].any()
    assert kept.more["a"].sum(1).tolist() == [3, 0] and kept.more["b"].sum(1).tolist() == [3, 21]


def test_random_fusion_draws_each_branch_a_third() -> None:
    drawn = random_fusion(3000, np.random.default_rng(0))
    found, counts = np.unique(drawn, axis=0, return_counts=True)
    assert found.tolist() == [[0, 2], [1, 1], [2, 0]] and counts.min() > 900


def test_the_clean_picture_is_found_again() -> None:
    settings = DiffusionSettings()
    noising = Noising(settings, make_scheduler(settings))
    clean = torch.randn(4, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    noisy, steps, target, _ = noising(clean, torch.Generator().manual_seed(1))
    torch.testing.assert_close(noising.clean(noisy, target, steps), clean, atol=1e-4, rtol=0)


def test_settings_out_of_range_are_refused() -> None:
    for wrong in (
        lambda: IPAdapterSettings(hidden=100),
        lambda: IPAdapterSettings(queries=0),
        lambda: FastComposerSettings(localisation=-1),
        lambda: PhotoVerseSettings(layers=()),
        lambda: PhotoVerseSettings(face_noise=2),
    ):
        with pytest.raises(SettingsError):
            wrong()
