"""The base recipe: it learns, and what it exports loads in a stock SDXL pipeline and draws."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import (
    DDPMScheduler,
    FlowMatchEulerDiscreteScheduler,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLPipeline,
)
from fake_world import FakeWorld
from PIL import Image

from photomaker.errors import WeightsError
from photomaker.pipelines.autoencoder import SmallAutoencoder
from photomaker.training.data.latents import cached_latents
from photomaker.training.data.tokenizer import build_tokenizers
from photomaker.training.losses.diffusion import (
    DiffusionSettings,
    LossSettings,
    Noising,
    encode_ids,
    make_scheduler,
    weighted_error,
)
from photomaker.training.recipes.autoencoder import AutoencoderRecipe, AutoencoderSettings
from photomaker.training.recipes.base import (
    BaseParts,
    BaseRecipe,
    BaseSizes,
    make_text_encoders,
    make_unet,
    token_ids,
)
from photomaker.training.running.loop import TrainSettings, train

SIZES = BaseSizes(blocks=(32, 32), text=(32, 32), text_layers=(2, 2), time=8)


def tiny_autoencoder() -> SmallAutoencoder:
    torch.manual_seed(0)
    return SmallAutoencoder(
        latent_channels=4,
        encoder_widths=(8, 16),
        encoder_blocks=(1, 1),
        decoder_widths=(8, 16),
        decoder_blocks=(1, 1),
    )


def tiny_parts(world: FakeWorld) -> BaseParts:
    captions = [world.caption(row, np.random.default_rng(row), 0.5) for row in range(len(world.images))]
    return BaseParts.new(tiny_autoencoder(), build_tokenizers(captions), SIZES)


def test_autoencoder_learns_and_its_export_is_normalised(tmp_path: Path) -> None:
    world = FakeWorld()
    recipe = AutoencoderRecipe(world, tiny_autoencoder())
    figures = train(
        recipe, TrainSettings(steps=60, batch_size=8, ema_decay=0.9, save_every=0, log_every=5), tmp_path
    )
    assert figures["validation_psnr"] > 12 and "validation_face_psnr" in figures
    exported = SmallAutoencoder.from_pretrained(tmp_path / "export")
    latents = cached_latents(exported, world, tmp_path / "cache")
    assert latents.shape == (48, 4, 16, 16)
    assert np.abs(latents.astype(np.float32).mean((0, 2, 3))).max() < 0.1
    assert np.abs(latents.astype(np.float32).std((0, 2, 3)) - 1).max() < 0.1


def test_a_decoder_trained_alone_leaves_the_latents_as_they_are(tmp_path: Path) -> None:
    world, model = FakeWorld(), tiny_autoencoder()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    recipe = AutoencoderRecipe(world, model, AutoencoderSettings(noise=0.5, decoder_only=True))
    train(recipe, TrainSettings(steps=3, batch_size=4, ema_decay=0, save_every=0), tmp_path)
    after = SmallAutoencoder.from_pretrained(tmp_path / "export", dtype=torch.float32).state_dict()
    kept = {name for name, tensor in before.items() if torch.equal(tensor.half().float(), after[name])}
    assert kept == {name for name in before if name.startswith("encoder.")}


def test_scale_equivariance_counts_the_decoding_of_half_the_latents() -> None:
    world, model = FakeWorld(), tiny_autoencoder()

    def loss(scale: float) -> float:
        recipe = AutoencoderRecipe(world, model, AutoencoderSettings(noise=0, scale=scale))
        with torch.no_grad():
            return float(recipe.loss(np.arange(4), np.random.default_rng(0), torch.Generator())[0])

    plain, once, twice = (loss(scale) for scale in (0, 1, 2))
    assert once > plain
    assert twice - plain == pytest.approx(2 * (once - plain), rel=1e-4)


def test_latents_are_kept_shared_and_bound_to_the_encoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, model = FakeWorld(), tiny_autoencoder()
    whole = np.array(cached_latents(model, world, tmp_path / "a"))
    monkeypatch.setattr("photomaker.training.data.array_cache.CHUNK", 10)
    half = cached_latents(model, world, tmp_path / "b", process=0, processes=2)
    assert not np.array_equal(half, whole)
    assert np.allclose(cached_latents(model, world, tmp_path / "b", process=1, processes=2), whole, atol=1e-2)

    def refuse(*_: object) -> None:
        raise AssertionError("encoded again")

    with monkeypatch.context() as patch:
        patch.setattr("photomaker.training.data.latents.encoded", refuse)
        with torch.no_grad():
            next(model.decoder.parameters()).add_(1)
        cached_latents(model, world, tmp_path / "b")
        with pytest.raises(AssertionError), torch.no_grad():
            next(model.encoder.parameters()).add_(1)
            cached_latents(model, world, tmp_path / "b")


def test_noising_is_the_v_parametrisation() -> None:
    noising = Noising(DiffusionSettings(), make_scheduler(DiffusionSettings()))
    clean = torch.randn(64, 4, 8, 8)
    noisy, steps, target, weight = noising(clean, torch.Generator().manual_seed(0))
    bar = noising.alpha_bar[steps].view(-1, 1, 1, 1)
    assert torch.allclose(bar.sqrt() * noisy - (1 - bar).sqrt() * target, clean, atol=1e-4)
    assert torch.equal(weight, torch.ones(64, 1, 1, 1))
    assert sorted((steps * 64 // 1000).tolist()) == pytest.approx(list(range(64)), abs=1)
    assert make_scheduler(DiffusionSettings()).alphas_cumprod[-1] < 1e-6
    settings = DiffusionSettings(min_snr=5, zero_snr=False)
    capped = Noising(settings, make_scheduler(settings))(clean, torch.Generator().manual_seed(0))[3]
    assert capped.min() > 0 and capped.max() <= 5 / 6 + 1e-3


def test_noising_follows_the_schedule_of_the_base() -> None:
    scheduler = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    noising = Noising(LossSettings(min_snr=5, stratified=False), scheduler)
    clean = torch.randn(64, 4, 8, 8)
    noisy, steps, target, weight = noising(clean, torch.Generator().manual_seed(0))
    bar = scheduler.alphas_cumprod[steps].view(-1, 1, 1, 1)
    torch.testing.assert_close(scheduler.add_noise(clean, target, steps), noisy)
    torch.testing.assert_close(weight, (bar / (1 - bar)).clamp(max=5) / (bar / (1 - bar)))
    with pytest.raises(WeightsError, match="predicts sample"):
        Noising(LossSettings(), DDPMScheduler(prediction_type="sample"))
    with pytest.raises(WeightsError, match="FlowMatch"):
        Noising(LossSettings(), FlowMatchEulerDiscreteScheduler())


def test_weighted_error_counts_cells_by_weight() -> None:
    target = torch.zeros(1, 2, 2, 2)
    predicted = torch.zeros(1, 2, 2, 2)
    predicted[..., 0, 0] = 1
    weight = torch.ones(1, 1, 2, 2)
    assert weighted_error(predicted, target, weight).item() == pytest.approx(0.25)
    weight[..., 0, 0] = 3
    assert weighted_error(predicted, target, weight).item() == pytest.approx(0.5)


def test_base_learns_resumes_and_draws_in_stock_pipelines(tmp_path: Path) -> None:
    world = FakeWorld()
    parts = tiny_parts(world)
    latents = cached_latents(parts.autoencoder, world, tmp_path)
    recipe = BaseRecipe(world, latents, parts)
    settings = TrainSettings(steps=30, batch_size=8, ema_decay=0.9, save_every=15, log_every=3)
    train(recipe, settings, tmp_path / "run")
    lines = (tmp_path / "run/log.jsonl").read_text().splitlines()
    losses = [row["loss"] for row in map(json.loads, lines) if "loss" in row]
    assert np.mean(losses[-3:]) < 0.8 * losses[0]

    folder = tmp_path / "run" / "export"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipe = StableDiffusionXLPipeline.from_pretrained(folder)
    assert type(pipe.vae).__name__ == "SmallAutoencoder" and pipe.vae_scale_factor == 8
    assert pipe.default_sample_size * pipe.vae_scale_factor == 128
    pipe.set_progress_bar_config(disable=True)
    image = pipe("a photo of a man in the snow", num_inference_steps=2).images[0]
    assert image.size == (128, 128)
    mask = Image.new("L", (128, 128), 255)
    for kind, extra in (
        (StableDiffusionXLImg2ImgPipeline, {}),
        (StableDiffusionXLInpaintPipeline, {"mask_image": mask}),
    ):
        other = kind(**pipe.components)
        other.set_progress_bar_config(disable=True)
        sizes = {"height": 128, "width": 128} if extra else {}
        again = other("a man", image=image, num_inference_steps=3, strength=0.8, **extra, **sizes).images[0]
        assert again.size == (128, 128)


def test_conditions_are_those_of_the_pipeline(tmp_path: Path) -> None:
    world = FakeWorld()
    parts = tiny_parts(world)
    parts.save(tmp_path, DiffusionSettings())
    loaded = BaseParts.load(tmp_path)
    pipe = StableDiffusionXLPipeline.from_pretrained(tmp_path, dtype=torch.float32)
    text = "a photo of an old man in the desert"
    wanted, negative, pooled, negative_pooled = pipe.encode_prompt(text, device="cpu")
    with torch.no_grad():
        got = encode_ids(loaded.text_encoders, token_ids(loaded.tokenizers, [text]))
    assert torch.allclose(got[0], wanted, atol=1e-5) and torch.allclose(got[1], pooled, atol=1e-5)
    assert not negative.any() and not negative_pooled.any()


def test_the_bundled_sizes_fit_their_budget() -> None:
    sizes, tokenizers = BaseSizes(), build_tokenizers(["a man in the snow"] * 9)
    assert sum(p.numel() for p in make_unet(sizes, 16).parameters()) < 6_800_000
    count = sum(p.numel() for m in make_text_encoders(sizes, tokenizers) for p in m.parameters())
    assert count < 1_300_000
