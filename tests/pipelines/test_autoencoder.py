"""The small autoencoder: shapes, exact rescaling, and stock diffusers pipelines load it by its import path."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from photomaker.pipelines.autoencoder import FACTOR, SmallAutoencoder


def tiny() -> SmallAutoencoder:
    torch.manual_seed(0)
    return SmallAutoencoder(
        latent_channels=4,
        encoder_widths=(8, 8),
        encoder_blocks=(1, 1),
        decoder_widths=(8, 8),
        decoder_blocks=(1, 1),
    ).eval()


def test_shapes_and_factor() -> None:
    model, x = tiny(), torch.rand(2, 3, 32, 64) * 2 - 1
    z = model.encode(x).latent_dist.mode()
    assert z.shape == (2, 4, 4, 8)
    assert torch.equal(z, model.encode(x, return_dict=False)[0].sample())
    assert model.decode(z).sample.shape == x.shape
    assert torch.equal(model.decode(z, return_dict=False)[0], model(x).sample)
    assert 2 ** (len(model.config.block_out_channels) - 1) == FACTOR


def test_rescaling_normalises_latents_and_keeps_pictures() -> None:
    model, x = tiny(), torch.rand(64, 3, 32, 32) * 2 - 1
    before, z = model(x).sample, model.encode(x).latent_dist.mode()
    model.rescale_latents(z.mean((0, 2, 3)), z.std((0, 2, 3)))
    z = model.encode(x).latent_dist.mode()
    assert torch.allclose(z.mean((0, 2, 3)), torch.zeros(4), atol=1e-4)
    assert torch.allclose(z.std((0, 2, 3)), torch.ones(4), atol=1e-4)
    assert torch.allclose(model(x).sample, before, atol=1e-4)


def test_the_bundled_size_fits_its_budget() -> None:
    assert sum(p.numel() for p in SmallAutoencoder().parameters()) <= 1_700_000


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_saved_and_loaded(tmp_path: Path, dtype: torch.dtype) -> None:
    model = tiny().to(dtype)
    model.save_pretrained(tmp_path)
    again = SmallAutoencoder.from_pretrained(tmp_path, dtype=dtype)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert json.loads((tmp_path / "config.json").read_text())["latent_channels"] == 4
